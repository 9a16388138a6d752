"""PyTorch against ONNX Runtime: the same inputs, the same outputs, at several batch sizes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cerewrite import ir
from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs, call, named_tensors
from cerewrite.exporter.quiet import evaluating, reason
from cerewrite.exporter.runner import Array, Runner, as_array

NEAR_ZERO = 1e-3
"""A weight tensor nowhere larger than this hides whatever it multiplies."""


def check_parity(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: Sequence[Any] | Mapping[str, Any],
    *,
    batches: Sequence[int] = (1, 2, 7),
    seed: int = 0,
    limit: float = 1e-5,
    note: str = "",
) -> tuple[ir.Parity, ...]:
    """Compare ``model`` in PyTorch eager with the ONNX file at ``path`` in ONNX Runtime (CPU).

    The relative error at one batch size is the largest over all outputs of::

        max |torch - onnx| / max |torch|

    both maxima over the whole output tensor; it is 0 where both are zero throughout, and
    infinite where the two differ in where they are not finite. Inputs are random
    (`cerewrite.exporter.inputs.draw`), seeded per batch size.

    Args:
        model: the module that the file was made of; unchanged, whatever its mode.
        path: ONNX file.
        example_inputs: example arguments of the model, positional or by name, batch first.
        batches: batch sizes to try.
        seed: seed of the random inputs.
        limit: largest relative error that passes.
        note: what to say about the comparison in each `cerewrite.ir.Parity`.

    Returns:
        One record per batch size, each within or beyond the limit.

    Raises:
        ExportError: if the file cannot be read or run, or gives other names or shapes.
    """
    example = ExampleInputs.of(model, example_inputs)
    runner = Runner(path)
    records = []
    for batch in batches:
        arguments = example.drawn(batch, seed + batch)
        with evaluating(model):
            wanted = named_tensors(call(model, arguments), example.tensor_names())
        found = runner(example, arguments, f"{Path(path).name} at batch {batch}")
        errors = (
            relative_error(as_array(tensor, name), found.get(name), name, batch)
            for name, tensor in wanted
        )
        records.append(ir.Parity(batch, max(errors), limit, note))
    return tuple(records)


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


def silent_outputs(model: nn.Module, example: ExampleInputs, seed: int) -> tuple[str, ...]:
    """Names of the outputs that two random inputs do not change: parity on them says nothing."""
    draws = [example.drawn(2, seed + shift) for shift in (101, 202)]
    with evaluating(model):
        pair = [named_tensors(call(model, draw), example.tensor_names()) for draw in draws]
    return tuple(
        name
        for (name, left), (_, right) in zip(*pair, strict=True)
        if left.shape == right.shape and bool(((left == right) | left.isnan()).all())
    )


def hidden_weights(model: nn.Module) -> tuple[str, ...]:
    """Names of floating-point parameters, biases aside, that are zero or nearly so throughout."""
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if not name.endswith("bias") and _near_zero(parameter)
    )


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose near-zero parameters are redrawn, ``N(0, 1 / fan_in)``; the rest as it was.

    Raises:
        ExportError: if the model cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} has zero weights and cannot be copied to be checked with "
            f"others: {reason(error)}",
            advice="export it after some training, or with weights that are not zero",
        ) from error
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if _near_zero(parameter):
                spread = math.prod(parameter.shape[1:]) ** -0.5
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return twin


def _near_zero(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or parameter.numel() == 0:
        return False
    return float(parameter.detach().abs().max()) <= NEAR_ZERO
