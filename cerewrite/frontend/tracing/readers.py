"""What a forward does with a value after it is there, as far as rules look ahead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from cerewrite.ir import Op
from cerewrite.ops.weighing import FUSED, PRODUCTS

KEPT = ("parameter", "constant")
"""Operators that stand for what a model holds."""

_REDUCING = frozenset({"sum", "mean", "softmax", "_softmax"})


def is_reduced(op: Op, axis: int, ops: Iterable[Op]) -> bool:
    """Whether something that reads a value sums, or weighs by a softmax, over an axis."""
    for reader in ops:
        if reader.target in _REDUCING and reader.inputs[:1] == (op.name,):
            given = reader.args[1] if len(reader.args) > 1 else (reader.kwargs or {}).get("dim")
            axes = given if isinstance(given, list | tuple) else [given]
            if any(isinstance(dim, int) and dim % len(op.shape) == axis for dim in axes):
                return True
    return False


def is_multiplied(op: Op, body: Sequence[Op]) -> bool:
    """Whether what a value becomes in the module that made it meets another in a product."""
    after = {op.name}
    for other in body:
        if after.intersection(other.inputs):
            after.add(other.name)
            if other.target in FUSED | PRODUCTS and len(other.inputs) > 1:
                return True
    return False


def ends_in_children(name: str, module: nn.Module, ops: Iterable[Op]) -> bool:
    """Whether a module's children are called in order, unit by unit, on what it has done.

    Args:
        name: the module's.
        module: the module; one without children is such a one too.
        ops: all operators.
    """
    prefix = f"{name}."
    own = [op for op in ops if f"{op.module}.".startswith(prefix)]
    inner = [op for op in own if op.module != name and op.target not in KEPT]
    known = {op.name for op in own}
    called = list(dict.fromkeys(op.module.removeprefix(prefix) for op in inner))
    return called == [child for child in module._modules if child in called] and all(
        (op.function is not None or op.target in ("identity", "dropout"))
        and known.issuperset(op.inputs)
        for op in inner
    )
