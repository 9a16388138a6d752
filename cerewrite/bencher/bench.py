"""Original against rewritten: engines, batch sizes and threads, interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from cerewrite.bencher.engines import ENGINES, EngineRefusal, threads
from cerewrite.errors import UsageError
from cerewrite.exporter import ExampleInputs
from cerewrite.ir import Timing
from cerewrite.latency import evaluating, interleave
from cerewrite.registry import suggest

BATCHES = (1, 16)
RUNS = 15


def bench(
    original: nn.Module,
    rewritten: nn.Module,
    example_inputs: Any,
    *,
    engines: Sequence[str] = ("eager", "onnxruntime"),
    batches: Sequence[int] = BATCHES,
    thread_counts: Sequence[int | None] = (None,),
    runs: int = RUNS,
) -> tuple[Timing, ...]:
    """Time two models in evaluation mode, taking turns; both are left as they were.

    Args:
        original: the model before.
        rewritten: the model after.
        example_inputs: a tuple or dict of tensors, batch first; rows are repeated or cut.
        engines: of ``eager``, ``compile``, ``onnxruntime``.
        batches: batch sizes, at least 1.
        thread_counts: threads per engine; None for torch's own number.
        runs: interleaved runs behind each median, at least 5.

    Returns:
        One record per engine, batch size and number of threads; an engine that cannot run one of
        the models says why.

    Raises:
        UsageError: if an engine is not known, or a number is below 1.
        ExportError: if the inputs do not fit the model.

    Example:
        >>> import torch
        >>> wide, narrow = nn.Linear(512, 512), nn.Linear(512, 8)
        >>> (timing,) = bench(wide, narrow, (torch.zeros(1, 512),), engines=["eager"], batches=[64])
        >>> timing.engine, timing.batch, timing.runs
        ('eager', 64, 15)
    """
    _check(engines, batches, thread_counts, runs)
    example = ExampleInputs.of(original, example_inputs)
    found = []
    with evaluating(original), evaluating(rewritten):
        for count in thread_counts:
            for batch in batches:
                inputs = example.resized(batch)
                found += [_measure(engine, original, rewritten, inputs, batch, count, runs)
                          for engine in engines]  # fmt: skip
    return tuple(found)


def _measure(
    engine: str,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: Any,
    batch: int,
    count: int | None,
    runs: int,
) -> Timing:
    with threads(count) as used, ExitStack() as stack:
        try:
            calls = [ENGINES[engine](model, inputs, stack) for model in (original, rewritten)]
        except EngineRefusal as refusal:
            return Timing(engine, batch, used, refused=str(refusal))
        before, after = interleave(calls, runs=runs)
    return Timing(
        engine, batch, used, before.median, before.spread, after.median, after.spread, before.runs
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
