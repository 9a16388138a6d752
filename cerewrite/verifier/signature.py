"""The rewritten model takes the same inputs and gives outputs of the same shapes and dtypes."""

from __future__ import annotations

from contextlib import suppress
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs, Output
from cerewrite.runtime.alone import short_of_memory
from cerewrite.runtime.trees import tensors
from cerewrite.verifier.perturb import ATTEMPTS, resample_signs
from cerewrite.verifier.running import as_sentence, call, fresh_copy
from cerewrite.verifier.shapes import run_for_shapes


def check_signature(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """Same class, output structure, shapes and dtypes, in evaluation and in training mode.

    A mode in which the original itself refuses the inputs (batch norm in training mode on one
    value per channel) is passed over, and the detail says so. Sizes that depend on values, such
    as the number of detections, are those that change with the signs of the original's weights;
    they may differ.
    """
    del plan
    if type(original) is not type(rewritten):
        return [_check(False, f"{type(original).__name__} became {type(rewritten).__name__}")]
    seen = []
    for mode, training in (("eval", False), ("train", True)):
        try:
            wanted = run_for_shapes(original, inputs, training=training)
        except Exception as error:
            if short_of_memory(error):
                raise
            seen.append(f"{mode} mode: not run, the original raises {as_sentence(error)}")
            continue
        try:
            found = run_for_shapes(rewritten, inputs, training=training)
        except Exception as error:
            if short_of_memory(error):
                raise
            return [_check(False, f"{mode} mode: {as_sentence(error)}")]
        before, after = _describe(wanted), _describe(found)
        if before != after:
            free = _free_axes(original, inputs, training, wanted)
            if _describe(wanted, free) != _describe(found, free):
                return [_check(False, f"{mode} mode: {before} became {after}")]
            before = f"{_describe(wanted, free)} (?: sizes that depend on values)"
        seen.append(f"{mode} mode: {before}")
    if all("not run" in line for line in seen):
        return [_check(False, "; ".join(seen))]
    return [_check(True, "; ".join(seen))]


Axes = frozenset[tuple[int, int]]
"""Axes of outputs: number of the tensor, number of the axis."""


def _free_axes(model: nn.Module, inputs: Inputs, training: bool, output: Output) -> Axes:
    """Axes whose size changes where the model's weights have other signs.

    An attempt in which the model raises, or that gives another structure, shows nothing.
    """
    sizes = [tuple(tensor.shape) for tensor in tensors(output)]
    found: set[tuple[int, int]] = set()
    for attempt in range(1, ATTEMPTS):
        copy, other = fresh_copy(model, training=training), []
        with torch.no_grad(), suppress(Exception):
            other = tensors(call(copy, resample_signs(copy, inputs, attempt)))
        if [tensor.dim() for tensor in other] == [len(shape) for shape in sizes]:
            found |= {
                (number, axis)
                for number, shape in enumerate(sizes)
                for axis, size in enumerate(shape)
                if other[number].shape[axis] != size
            }
    return frozenset(found)


def _describe(output: Output, free: Axes = frozenset()) -> str:
    """Structure, shapes and dtypes of an output; sizes of free axes are question marks."""
    numbers = count()

    def one(leaf: object) -> str:
        if isinstance(leaf, Tensor):
            number = next(numbers)
            sizes = ["?" if (number, a) in free else str(n) for a, n in enumerate(leaf.shape)]
            shape = f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
            return f"{shape} {str(leaf.dtype).removeprefix('torch.')}"
        inside = ", ".join(map(one, tensors(leaf)))
        return f"{type(leaf).__name__}({inside})" if inside else type(leaf).__name__

    leaves, structure = pytree.tree_flatten(output)
    described = [one(leaf) for leaf in leaves]
    if isinstance(output, Tensor):
        return described[0]
    return f"{type(output).__name__}[{', '.join(described)}] of {structure.num_nodes} nodes"


def _check(passed: bool, detail: str) -> Check:
    return Check("signature", passed, detail)
