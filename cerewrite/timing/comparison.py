"""Original against rewritten: engines, batch sizes and threads, interleaved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Inputs, Timing
from cerewrite.registry import suggest
from cerewrite.runtime.alone import MOST_THREADS
from cerewrite.runtime.modes import evaluating
from cerewrite.runtime.threads import threads
from cerewrite.timing.engines import ENGINES, EngineRefusal
from cerewrite.timing.interleave import interleave

BATCHES = (1, 16)
RUNS = 15


def bench(
    original: nn.Module,
    rewritten: nn.Module,
    example_inputs: Inputs,
    *,
    engines: Sequence[str] = ("eager", "onnxruntime", "step"),
    batches: Sequence[int] = BATCHES,
    thread_counts: Sequence[int | None] = (None,),
    runs: int = RUNS,
) -> tuple[Timing, ...]:
    """Time two models in evaluation mode, taking turns; both are left as they were.

    Args:
        original: the model before.
        rewritten: the model after.
        example_inputs: a tuple or dict of tensors, batch first; rows are repeated or cut.
        engines: of ``eager``, ``compile``, ``onnxruntime``, ``step`` (training steps).
        batches: batch sizes, at least 1.
        thread_counts: threads per engine; None for torch's own number.
        runs: interleaved runs behind each median, at least 5.

    Returns:
        One record per engine, batch size and number of threads; an engine that cannot run one of
        the models says why.

    Raises:
        UsageError: if an engine is not known, or a number is below 1 or too large.
        ExportError: if the inputs do not fit the model.

    Example:
        >>> import torch
        >>> wide, narrow = nn.Linear(512, 512), nn.Linear(512, 8)
        >>> (timing,) = bench(wide, narrow, (torch.zeros(1, 512),), engines=["eager"], batches=[64])
        >>> timing.engine, timing.batch, timing.runs
        ('eager', 64, 15)
    """
    from cerewrite.exporter import ExampleInputs  # which loads onnxscript: a second, for this alone

    _check(engines, batches, thread_counts, runs)
    example = ExampleInputs.of(original, example_inputs)
    sized = {batch: example.resized(batch) for batch in batches}
    found: list[Timing] = []
    with evaluating(original, rewritten):
        for count in thread_counts:
            for engine in engines:
                found += _measure(engine, (original, rewritten), example_inputs, sized, count, runs)
    return tuple(found)


def _measure(
    engine: str,
    models: tuple[nn.Module, nn.Module],
    example: Inputs,
    sized: Mapping[int, Inputs],
    count: int | None,
    runs: int,
) -> Iterator[Timing]:
    """One engine at one number of threads, at every batch size."""
    with threads(count) as used, ExitStack() as stack:
        try:
            prepared = [ENGINES[engine](model, example, stack) for model in models]
        except EngineRefusal as refusal:
            yield from (Timing(engine, batch, used, refused=str(refusal)) for batch in sized)
            return
        for batch, inputs in sized.items():
            try:
                calls = [bind(inputs) for bind in prepared]
            except EngineRefusal as refusal:
                yield Timing(engine, batch, used, refused=str(refusal))
                continue
            one, two = interleave(calls, runs=runs)
            yield Timing(
                engine, batch, used, one.median, one.spread, two.median, two.spread, one.runs
            )


def _check(
    engines: Sequence[str],
    batches: Sequence[int],
    thread_counts: Sequence[int | None],
    runs: int,
) -> None:
    for engine in engines:
        if engine not in ENGINES:
            raise UsageError(
                f"unknown engine '{engine}'", advice=suggest(engine, dict.fromkeys(ENGINES))
            )
    numbers = [*batches, *(count for count in thread_counts if count is not None), runs]
    if not engines or not batches or not thread_counts or min(numbers) < 1:
        raise UsageError(
            "nothing to measure: engines, batches and threads need one entry or more, each number "
            "at least 1",
            advice="for example batches=[1, 16], thread_counts=[1], runs=15",
        )
    if max((count for count in thread_counts if count is not None), default=1) > MOST_THREADS:
        raise UsageError(
            f"more than {MOST_THREADS} threads cannot be asked for", advice="ask for fewer"
        )
