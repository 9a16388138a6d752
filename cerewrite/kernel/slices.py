"""Concatenations and slices of them: which units lie where (docs/theory.md, section 24)."""

from __future__ import annotations

from collections import deque

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments, cut

JOINS = frozenset({"cat", "concat", "concatenate"})
"""Names of the operator that puts values side by side."""
_FAR = 256
"""Operators between a slice and what it takes apart at most."""


def joined_axis(op: Op) -> int | None:
    """The axis along which an operator concatenates; None where it cannot be read off."""
    return None if op.target == "stack" else _axis(op)


def stacked_axis(op: Op) -> int:
    """The new axis of a stack; -1 for another operator."""
    axis = _axis(op) if op.target == "stack" else None
    return -1 if axis is None else axis


def _axis(op: Op) -> int | None:
    named = op.kwargs or {}
    dim = op.args[1] if len(op.args) > 1 else named.get("dim", named.get("axis", 0))
    return int(dim) % len(op.shape) if isinstance(dim, int) else None


def between(op: Op, x: Moments, context: MomentContext) -> Moments:
    """A slice of a concatenation along its own axis: the units that lie there; of others: all.

    Sums, norms and functions may lie between the two, as they keep positions.
    """
    axis, start, _, step = [*op.args[1:5], None, None, None, None][:4]
    whole = context.operand(op).shape
    if len(op.shape) != len(whole) or step not in (None, 1) or not isinstance(axis, int):
        return x
    axis %= len(whole)
    start = 0 if start is None else start
    if not isinstance(start, int) or op.shape[axis] in (0, whole[axis]):
        return x
    if len(x.parts) == 1 or not _joined_along(op, axis, context):
        return x
    size = whole[axis]
    start = max(start + size, 0) if start < 0 else start
    return cut(x, start / size, (start + op.shape[axis]) / size)


def _joined_along(op: Op, axis: int, context: MomentContext) -> bool:
    """Whether the nearest concatenation of the same shape that a value is made of joins an axis."""
    start = context.operand(op)
    queue, seen = deque([start]), {start.name}
    while queue and len(seen) < _FAR:
        found = queue.popleft()
        if found.target in JOINS:
            return joined_axis(found) == axis
        if found.name in context.layers:
            continue
        for other in context.operands(found):
            if other.shape == start.shape and other.name not in seen:
                seen.add(other.name)
                queue.append(other)
    return False
