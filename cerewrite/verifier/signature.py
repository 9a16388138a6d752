"""The rewritten model takes the same inputs and gives outputs of the same shapes and dtypes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.ir import Check, Plan
from cerewrite.trees import tensors
from cerewrite.verifier.running import Inputs, as_sentence
from cerewrite.verifier.shapes import run_for_shapes


def check_signature(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """Same class, output structure, shapes and dtypes, in evaluation and in training mode.

    A mode in which the original itself refuses the inputs (batch norm in training mode on one
    value per channel) is passed over, and the detail says so.
    """
    del plan
    if type(original) is not type(rewritten):
        return [_check(False, f"{type(original).__name__} became {type(rewritten).__name__}")]
    seen = []
    for mode, training in (("eval", False), ("train", True)):
        try:
            before = _describe(original, inputs, training)
        except Exception as error:
            seen.append(f"{mode} mode: not run, the original raises {as_sentence(error)}")
            continue
        try:
            after = _describe(rewritten, inputs, training)
        except Exception as error:
            return [_check(False, f"{mode} mode: {as_sentence(error)}")]
        if before != after:
            return [_check(False, f"{mode} mode: {before} became {after}")]
        seen.append(f"{mode} mode: {before}")
    if all("not run" in line for line in seen):
        return [_check(False, "; ".join(seen))]
    return [_check(True, "; ".join(seen))]


def _describe(model: nn.Module, inputs: Inputs, training: bool) -> str:
    output = run_for_shapes(model, inputs, training=training)
    leaves, structure = pytree.tree_flatten(output)
    described = [_leaf(leaf) for leaf in leaves]
    if isinstance(output, Tensor):
        return described[0]
    return f"{type(output).__name__}[{', '.join(described)}] of {structure.num_nodes} nodes"


def _leaf(leaf: Any) -> str:
    """A tensor's shape and dtype; another leaf's type, with the tensors inside it."""
    if isinstance(leaf, Tensor):
        return f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"
    inside = ", ".join(map(_leaf, tensors(leaf)))
    return f"{type(leaf).__name__}({inside})" if inside else type(leaf).__name__


def _check(passed: bool, detail: str) -> Check:
    return Check("signature", passed, detail)
