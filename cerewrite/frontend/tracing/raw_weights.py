"""Convolutions that standardise their weight, as operators that read the weight itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from cerewrite.ir import Op, Ref
from cerewrite.ops.standardised import STANDARDISED, standardises

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_ENDS = ("input", "parameter", "constant", "output")


def with_raw_weights(ops: Sequence[Op], model: nn.Module) -> list[Op]:
    """Let convolutions that standardise their weight read that, and leave out how they do it.

    Such an operator has the keyword `STANDARDISED`.

    Args:
        ops: operators in execution order.
        model: the traced module.
    """
    known = {op.name: op for op in ops}
    raw = {op.module: op.name for op in ops if op.target == "parameter"}
    asked: dict[str, bool] = {}
    found = list(ops)
    for at, op in enumerate(ops):
        weight = raw.get(f"{op.module}.weight")
        if op.target not in _CONVOLUTIONS or len(op.inputs) < 2 or weight is None:
            continue
        if known[op.inputs[1]].target in _ENDS:
            continue
        if op.module not in asked:
            asked[op.module] = standardises(model.get_submodule(op.module))
        if asked[op.module]:
            found[at] = _rewired(op, weight)
    return _read(found, {name for name, does in asked.items() if does})


def _rewired(op: Op, weight: str) -> Op:
    computed = op.inputs[1]

    def rename(leaf: Any) -> Any:
        return Ref(weight) if isinstance(leaf, Ref) and leaf.name == computed else leaf

    args, kwargs = pytree.tree_map(
        rename, (op.args, dict(op.kwargs or {})), is_leaf=lambda leaf: isinstance(leaf, Ref)
    )
    inputs = (op.inputs[0], weight, *op.inputs[2:])
    return replace(op, inputs=inputs, args=args, kwargs={**kwargs, STANDARDISED: True})


def _read(ops: Sequence[Op], modules: set[str]) -> list[Op]:
    """Operators without those of some modules, made of parameters alone, that nothing reads."""
    fixed: set[str] = set()
    for op in ops:
        ends = op.target in ("parameter", "constant")
        if ends or (op.inputs and op.module in modules and fixed.issuperset(op.inputs)):
            fixed.add(op.name)
    read: set[str] = set()
    kept: list[Op] = []
    for op in reversed(ops):
        if op.target in _ENDS or op.name in read or op.name not in fixed:
            read.update(op.inputs)
            kept.append(op)
    return kept[::-1]
