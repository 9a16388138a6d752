"""Views: where the channel axis goes when axes are merged and divided.

A view that divides the channels into heads, ``[.., heads * d]`` to ``[.., heads, d]``, moves them
to the axis of the heads, of which members own whole ones; axes before it hold as many parts side
by side (query, key and value of one layer). The view back makes channels of them again.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from math import gcd, prod

from cerewrite.ir import Length, Op
from cerewrite.ops.base import Channels, Value, WidthBuilder

VIEWED = ("view", "reshape", "_unsafe_view")
"""Operators that name the sizes of a value anew."""


def named_sizes(op: Op) -> list[object]:
    """The sizes that a view names, -1 among them."""
    if op.target == "unflatten":
        axis, sizes = _unflattened(op)
        kept: list[object] = list(op.shape)
        kept[axis : axis + len(sizes)] = sizes
        return kept
    if len(op.args) == 2 and isinstance(op.args[1], list | tuple):
        return list(op.args[1])
    return list(op.args[1:])


def _unflattened(op: Op) -> tuple[int, list[object]]:
    named = op.kwargs or {}
    sizes = list(op.args[2] if len(op.args) > 2 else named.get("sizes", ()))
    axis = int(op.args[1] if len(op.args) > 1 else named.get("dim", 0))
    return axis % (len(op.shape) - len(sizes) + 1), sizes


def merged(
    before: Sequence[int], after: Sequence[int], found: Channels, widths: WidthBuilder
) -> Channels | None:
    """The channel axis where the same number of elements lies before it, and it is not divided."""
    lead, count = prod(before[: found.axis]), before[found.axis]
    passed = 1
    for axis, size in enumerate(after):
        if passed == lead and size % count == 0 and (size > 1 or count == 1):
            return channels_on(found.width, axis, size, widths)
        passed *= size
    return None


def channels_on(width: int, axis: int, length: int, widths: WidthBuilder) -> Channels:
    """Channels of a class on an axis of so many elements; of a part of it where they are fewer.

    An axis of heads has several channels per element (`Channels.unit`), and so has one of merged
    heads of which a part was cut out: what reads it takes fractions of channels (`whole`).
    """
    shared = gcd(length, widths.size(width))
    return Channels(axis, width, length // shared, widths.size(width) // shared)


def whole(channels: Channels, widths: WidthBuilder) -> Channels:
    """The same axis with a class of which it has whole channels."""
    if channels.unit == 1:
        return channels
    return Channels(channels.axis, widths.fraction(channels.width, channels.unit), channels.inner)


def divided(op: Op, value: Value, widths: WidthBuilder) -> Channels | None:
    """The axis of the heads, where a view divides the channels; None where it is not known."""
    found = value.channels
    assert found is not None
    run = _run(value.op.shape, op.shape, found.axis)
    sizes = named_sizes(op) if op.target in (*VIEWED, "unflatten") else []
    if not run or len(sizes) != len(op.shape):
        return None
    where = op.module or op.name
    inferred = [axis for axis in run if sizes[axis] == -1]
    read = [axis for axis in run if isinstance(sizes[axis], Length)]
    read = [axis for axis in read if not widths.is_reduced(op, axis)] or read
    if inferred and min(read, default=inferred[0]) < inferred[0] and widths.is_multiplied(op):
        inferred = []  # heads, of so many channels as there are
    at = next(iter(inferred or read), None)
    if at is None:
        return None
    width = found.width
    parts = prod(op.shape[run[0] : at])
    if parts > 1:
        kept = all(widths.stays(size) for size in sizes[run[0] : at])
        if found.unit != 1 or found.inner != 1 or not kept:
            return None
        several = widths.divide(width, [widths.size(width) // parts] * parts)
        if several is None:
            return None
        width = several[0]
    if not inferred and not widths.grows(sizes[at], width, where):
        return None
    if not all(widths.stays(sizes[axis]) for axis in run if axis > at):
        return None
    heads = channels_on(width, at, op.shape[at], widths)
    widths.step(width, heads.unit)
    return heads


def joined(op: Op, value: Value, widths: WidthBuilder) -> Channels | None:
    """The axis where fixed axes before the channels are merged with them; None if none are.

    It holds the channels side by side, once for every element of those axes: positions of a patch
    that is read whole, or channels of heads that lie before the axis of the heads.
    """
    found = value.channels
    assert found is not None
    before, after = value.op.shape, op.shape
    ends = prod(before[: found.axis + 1])
    at = next((i for i in range(len(after)) if prod(after[: i + 1]) == ends), None)
    parts = 0 if at is None else after[at] // before[found.axis]
    starts = [prod(before[:axis]) for axis in range(found.axis)]
    if at is None or parts < 2 or prod(after[:at]) not in starts:
        return None
    channels = whole(found, widths)
    sizes = named_sizes(op) if op.target in VIEWED else []
    if sizes and not (
        len(sizes) == len(after)
        and (sizes[at] == -1 or widths.grows(sizes[at], channels.width, op.module or op.name))
    ):
        return None
    return Channels(at, widths.concatenate([channels.width] * parts), channels.inner)


def _run(before: Sequence[int], after: Sequence[int], axis: int) -> list[int]:
    """The axes into which a view divides one axis, without those of size 1; none if it does not."""
    lead, count, passed = prod(before[:axis]), before[axis], 1
    for start, size in enumerate(after):
        if passed == lead and size > 1:
            ends = accumulate(after[start:], operator.mul, initial=1)
            run = [
                start + i for i, done in enumerate(ends) if done < count and start + i < len(after)
            ]
            return run if prod(after[i] for i in run) == count and len(run) > 1 else []
        passed *= size
    return []
