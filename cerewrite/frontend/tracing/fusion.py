"""Pointwise functions written out by hand: ``x * sigmoid(x)`` is one function of ``x``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from cerewrite.ir import Op

Combine = Callable[[Sequence[Tensor]], Tensor]
Function = Callable[[Tensor], Tensor]


def fuse(ops: Sequence[Op], combine: dict[str, Combine]) -> list[Op]:
    """Turn operators whose operands are all functions of one value into functions of it.

    Products and sums of branches are analysed as if the branches were independent; two
    functions of the same value are not.

    Args:
        ops: operators in execution order.
        combine: for operators that act unit by unit on several tensors, by name: the operator
            as a function of its operands in order.

    Returns:
        The same operators; those that could be fused read the common value directly.
    """
    roots: dict[str, tuple[str, Function]] = {}
    fused = []
    for op in ops:
        if op.function is not None:
            roots[op.name] = _behind(roots, op.inputs[0], op.function)
        elif op.name in combine:
            found = [roots.get(name, (name, _same)) for name in op.inputs]
            if len({root for root, _ in found}) == 1:
                function = _joined(combine[op.name], [step for _, step in found])
                roots[op.name] = (found[0][0], function)
                op = replace(op, inputs=(found[0][0],), function=function)
        fused.append(op)
    return fused


def _same(value: Tensor) -> Tensor:
    return value


def _behind(
    roots: dict[str, tuple[str, Function]], name: str, outer: Callable[..., Any]
) -> tuple[str, Function]:
    root, inner = roots.get(name, (name, _same))
    return root, lambda value: outer(inner(value).clone())


def _joined(combine: Combine, steps: Sequence[Function]) -> Function:
    return lambda value: combine([step(value) for step in steps])
