"""Branches: values stacked on an axis of their own, or a channel axis cut in two; sums over them.

Selective kernels and split attention weigh branches by a softmax over such an axis and add them,
unit by unit: docs/theory.md, section 25.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod

import torch
from torch import Tensor

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel import values as algebra
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.slices import stacked_axis
from cerewrite.kernel.values import Moments
from cerewrite.ops.layout import axis_order
from cerewrite.ops.views import VIEWED

_MOST = 8
"""Branches at most: each is a unit of its own in what follows."""
_STEEP = 40.0
"""Differences of logits above which a weight is 0 for good."""
_ELEMENTWISE = frozenset(
    {"mul", "add", "sub", "pointwise", "softmax", "_softmax", "dropout", "clone", "contiguous"}
)

Find = Callable[[str], Op]


def branch_count(name: str, axis: int, find: Find) -> int:
    """How many branches stand side by side on an axis of a value; 0 where it is no such axis.

    Args:
        name: the operator that makes the value.
        axis: its axis.
        find: gives an operator by name.

    Raises:
        NoClosedFormError: if they are more than the closed form follows.
    """
    op = find(name)
    count = op.shape[axis]
    if count < 2:
        return 0
    if op.target == "stack":
        return _followed(op) if stacked_axis(op) == axis else 0
    if op.target in (*VIEWED, "unflatten"):
        before = find(op.inputs[0]).shape
        if before == op.shape:
            return branch_count(op.inputs[0], axis, find)
        return count if count <= _MOST and _cuts_channels(before, op.shape, axis) else 0
    if op.target in ("permute", "transpose"):
        order = axis_order(op, len(op.shape))
        return 0 if order is None else branch_count(op.inputs[0], order[axis], find)
    if op.target not in _ELEMENTWISE and op.function is None:
        return 0
    same = (n for n in op.inputs if len(find(n).shape) == len(op.shape))
    same = (n for n in same if find(n).shape[axis] == count)
    return max((branch_count(n, axis, find) for n in same), default=0)


def _followed(op: Op) -> int:
    """How many branches a stack has."""
    count = len(op.inputs)
    if count > _MOST:
        raise NoClosedFormError(
            f"no closed form for {count} branches in '{op.module or op.name}', more than {_MOST}",
            advice=NoClosedFormError.ADVICE,
        )
    return count


def branch(x: Moments, op: Op, axis: int, index: int, find: Find) -> Moments:
    """One of the branches that lie on an axis of what an operator reads; of other axes: all."""
    count = branch_count(op.inputs[0], axis, find)
    return algebra.slices(x, count)[index] if count else x


def _cuts_channels(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> bool:
    """Whether a view cuts the channel axis in two and ``axis`` is the outer piece."""
    channels = len(before) - 1 if len(before) <= 3 else 1
    inside = prod(after[:axis]) == prod(before[:channels])
    cut = before[channels] // after[axis]
    return inside and cut > 1 and after[axis : axis + 2] == (before[channels] // cut, cut)


def branch_sum(x: Moments, count: int) -> Moments:
    """The sum of a value's branches, unit by unit: units of different branches are independent."""
    return reduce(algebra.add, algebra.slices(x, count))


def branch_softmax(x: Moments, count: int, context: MomentContext) -> Moments:
    """Weights of branches, ``1 / (1 + sum exp(other - own))``: functions of all their logits."""
    logits = algebra.slices(x, count)
    negated = [context.apply(torch.neg, "neg", logit) for logit in logits]
    weights = []
    for own in range(count):
        rest = [algebra.add(logits[i], negated[own]) for i in range(count) if i != own]
        odds = reduce(algebra.add, (context.apply(_odds, "odds", x) for x in rest))
        weights.append((1, context.apply(_share, "share", odds)))
    return algebra.concatenate(weights)


def _odds(difference: Tensor) -> Tensor:
    return difference.clamp(max=_STEEP).exp()


def _share(odds: Tensor) -> Tensor:
    return 1 / (1 + odds)
