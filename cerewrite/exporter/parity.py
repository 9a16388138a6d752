"""PyTorch against ONNX Runtime: the same inputs, the same outputs, at several batch sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cerewrite import ir
from cerewrite.errors import EndedError, ExportError, ShortOfMemoryError, UsageError
from cerewrite.exporter.empty import answer, no_answer
from cerewrite.exporter.inputs import DynamicAxes, ExampleInputs, call, named_tensors
from cerewrite.exporter.members import is_by_member
from cerewrite.exporter.precision import cast, cast_inputs, is_16_bit
from cerewrite.exporter.reasons import reason
from cerewrite.exporter.runner import Array, Runner, as_array
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.doubling import double_precision
from cerewrite.runtime.modes import undisturbed

ROUNDING = 10.0
"""Times the limit that PyTorch's own float32 may be off its float64, and the file with it."""

BATCHES = (0, 1, 2, 7)
"""Batch sizes at which parity is checked; 0 only where the model itself takes it."""

OTHERS: tuple[Callable[[int], int], ...] = (
    lambda size: 2 * size,
    lambda size: size + 1,
    lambda size: max(2, size // 2),
    lambda size: size - 1,
)
"""Sizes to try along an axis that varies beside the batch, the first that the model takes."""


def check_parity(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: Sequence[Any] | Mapping[str, Any],
    *,
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
    limit: float | None = None,
    note: str = "",
    dynamic_axes: DynamicAxes | None = None,
) -> tuple[ir.Parity, ...]:
    """Compare ``model`` in PyTorch eager with the ONNX file at ``path`` in ONNX Runtime (CPU).

    The relative error at one batch size is the largest over all outputs of::

        max |torch - onnx| / max |torch|

    both maxima over the whole output tensor, and over each member's part of an output that has
    members; it is 0 where both are zero throughout, and
    infinite where the two differ in where they are not finite. For a model in 16 bits PyTorch
    computes in float32, on the same 16-bit weights and inputs, as ONNX Runtime does inside;
    PyTorch's own 16-bit kernels on the CPU round after every operation. Where a float32 model is
    beyond the limit, it is run in float64: that is then the reference, and its distance from
    PyTorch in float32 the limit if that is larger, up to `ROUNDING` times the limit. The record's
    note says so. Inputs are random
    (`cerewrite.exporter.inputs.draw`), seeded per batch size.

    Args:
        model: the module that the file was made of; unchanged, whatever its mode.
        path: ONNX file.
        example_inputs: example arguments of the model, positional or by name, batch first.
        batches: batch sizes to try; 0 is left out where the model itself refuses it.
        seed: seed of the random inputs.
        limit: largest relative error that passes; by default see `default_limit`.
        note: what to say about the comparison in each `cerewrite.ir.Parity`.
        dynamic_axes: other axes that may vary; they are tried at another size as well.

    Returns:
        One record per batch size, and one for the other axes, each within or beyond the limit.

    Raises:
        UsageError: if no batch size is above 0.
        ExportError: if the file cannot be read or run, or gives other names or shapes, or the
            model itself does not run at another size of the axes that may vary.
    """
    require_batches(batches)
    example = ExampleInputs.of(model, example_inputs, dynamic_axes)
    limit = default_limit(model) if limit is None else limit
    pairs = compare(model, Path(path), example, batches, seed=seed, limit=limit, note=note)
    return tuple(record for record, _ in pairs)


def require_batches(batches: Sequence[int]) -> None:
    """Refuse a comparison that would compare nothing: a batch of 0 has shapes alone.

    Raises:
        UsageError: if no batch size is above 0, or one is below.
    """
    if not batches or max(batches) < 1 or min(batches) < 0:
        raise UsageError(
            f"parity at the batch sizes {tuple(batches)}", advice="give one of 1 or more, and 0"
        )


def default_limit(model: nn.Module) -> float:
    """1e-5; 1e-3 for a model with parameters of 16 bits."""
    return 1e-3 if is_16_bit(model) else 1e-5


def compare(
    model: nn.Module,
    path: Path,
    example: ExampleInputs,
    batches: Sequence[int],
    *,
    seed: int,
    limit: float,
    note: str = "",
    exact: nn.Module | None = None,
) -> list[tuple[ir.Parity, Inputs]]:
    """See `check_parity`: every record with the arguments on which the two were compared.

    ``exact`` is the model in float32 that ``model`` was rounded from; it is then the reference.
    """
    runner = Runner(path)
    wide = exact is not None or is_16_bit(model)
    reference = exact if exact is not None else cast(model, torch.float32) if wide else model
    if wide:
        weights = "the same weights" if exact is None else "its float32 weights"
        note = "; ".join(filter(None, (note, f"PyTorch in float32 on {weights}")))
    pairs = []
    if 0 in batches and (arguments := compare_empty(reference, path, runner, example)) is not None:
        pairs.append((ir.Parity(0, 0.0, limit, note), arguments))
    cases: list[tuple[int, dict[str, int], str]] = [(batch, {}, note) for batch in batches if batch]
    if other := _other_sizes(model, example):
        text = ", ".join(f"{symbol} {size}" for symbol, size in other.items())
        cases.append((max(batches), other, f"{note}; {text}" if note else text))
    for batch, sizes, text in cases:
        arguments = example.drawn(batch, seed + batch, sizes)
        given = cast_inputs(arguments, torch.float32) if wide else arguments
        with undisturbed(reference):
            wanted = named_tensors(call(reference, given), example.tensor_names())
        found = runner(example, arguments, f"{path.name} at batch {batch}")
        record = ir.Parity(batch, _worst(reference, wanted, found, batch), limit, text)
        if not record.passed and not wide:
            record = _in_double(reference, example, arguments, found, wanted, record)
        pairs.append((record, arguments))
    return pairs


Named = Sequence[tuple[str, Tensor]]


def compare_empty(
    reference: nn.Module, path: Path, runner: Runner, example: ExampleInputs
) -> Inputs | None:
    """The arguments of a batch of 0, which has shapes alone; None if the model does not take it.

    Raises:
        NoAnswer: if ONNX Runtime does not take it, or gives other shapes.
    """
    arguments = example.drawn(0, 0)
    kinds = {p.dtype for p in reference.parameters() if p.is_floating_point()}
    given = cast_inputs(arguments, kinds.pop()) if len(kinds) == 1 else arguments
    try:
        with undisturbed(reference):
            wanted = named_tensors(call(reference, given), example.tensor_names())
    except (ShortOfMemoryError, EndedError):
        raise
    except Exception:  # the model's own: what it refuses need not be answered
        return None
    found = answer(path, runner.feed(example, arguments, f"{path.name} at batch 0"))
    for name, tensor in wanted:
        shape = found[name].shape if name in found else None
        if shape != tuple(tensor.shape):
            raise no_answer(path, f"'{name}' is {shape}, in PyTorch {tuple(tensor.shape)}")
    return arguments


def _worst(model: nn.Module, wanted: Named, found: Mapping[str, Array], batch: int) -> float:
    """The largest error of all outputs, and of each member alone where members have an axis."""
    errors = [
        relative_error(as_array(tensor, name), found.get(name), name, batch)
        for name, tensor in wanted
    ]
    names = {name for name, _ in wanted}
    for name, tensor in wanted:
        if is_by_member(model, name, names):
            errors += [
                relative_error(as_array(own, name), found[name][:, index], name, batch)
                for index, own in enumerate(tensor.unbind(1))
            ]
    return max(errors)


def _in_double(
    model: nn.Module,
    example: ExampleInputs,
    arguments: Inputs,
    found: Mapping[str, Array],
    wanted: Named,
    record: ir.Parity,
) -> ir.Parity:
    """The record against the model in float64 where that is nearer; as it was where it is not."""
    try:
        exact = cast(model, torch.float64)
        with undisturbed(exact), double_precision():
            outputs = call(exact, cast_inputs(arguments, torch.float64))
        truth = named_tensors(outputs, example.tensor_names())
    except (ShortOfMemoryError, EndedError):
        raise
    except Exception:  # a model that does not run in float64 stays beyond the limit
        return record
    float32 = {name: as_array(tensor, name) for name, tensor in wanted}
    own = _worst(model, truth, float32, record.batch)
    error = _worst(model, truth, found, record.batch)
    limit = max(record.limit, min(own, ROUNDING * record.limit))
    if error > limit:
        return record
    note = f"against float64, which PyTorch's float32 misses by {own:.1e}"
    text = f"{record.note}; {note}" if record.note else note
    return ir.Parity(record.batch, error, limit, text)


def _other_sizes(model: nn.Module, example: ExampleInputs) -> dict[str, int]:
    """Another size for every open axis, at which the model itself runs; empty without any."""
    now = example.sizes()
    if not now:
        return {}
    tried = []
    for change in OTHERS:
        sizes = {symbol: change(size) for symbol, size in now.items()}
        try:
            with undisturbed(model):
                call(model, example.resized(2, sizes))
        except (ShortOfMemoryError, EndedError):
            raise
        except Exception as error:
            tried.append(f"{sizes}: {reason(error, 100)}")
            continue
        if sizes != now:
            return sizes
    raise ExportError(
        f"{type(model).__name__} runs at no other size of its dynamic axes: {'; '.join(tried)}",
        advice="leave out the axes that the model cannot vary",
    )


def relative_error(wanted: Array, found: Array | None, name: str, batch: int) -> float:
    """``max |wanted - found| / max |wanted|`` over finite entries; see `check_parity`.

    Raises:
        ExportError: if ``found`` is missing or has another shape.

    Example:
        >>> round(relative_error(np.array([2.0, 4.0]), np.array([2.0, 5.0]), "y", 2), 3)
        0.25
    """
    shape = None if found is None else found.shape
    if found is None or shape != wanted.shape:
        raise ExportError(
            f"output '{name}' has shape {shape} in ONNX Runtime and {wanted.shape} in PyTorch "
            f"at batch {batch}",
            advice="the model holds its example's batch size in a constant: use x.shape[0] or -1",
        )
    left, right = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return math.inf
    difference = np.abs(left - right)[finite].max(initial=0.0)
    scale = np.abs(left)[finite].max(initial=0.0)
    if difference == 0:
        return 0.0
    return float(difference / scale) if scale > 0 and np.isfinite(difference) else math.inf
