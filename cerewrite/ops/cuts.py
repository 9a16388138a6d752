"""Cuts along the channels, expansions and repetitions beside them."""

from __future__ import annotations

from collections.abc import Sequence

from cerewrite.ir import Op
from cerewrite.ops.base import Channels, Value, WidthBuilder
from cerewrite.ops.views import channels_on

CUTS = frozenset(
    {"chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split", "tensor_split"}
)
"""Operators that cut a value into several along one axis."""


def piece(op: Op, value: Value, index: int, widths: WidthBuilder) -> Channels | None:
    """One of the values into which an operator cuts its channels; None where they are not divided.

    What one layer writes is then several classes side by side: query, key and value, or the two
    halves of a gate.
    """
    found = value.channels
    if found is None or found.inner != 1 or found.unit != 1:
        return None
    total = widths.size(found.width)
    sizes, named = _pieces(op, total)
    parts = widths.divide(found.width, sizes) if sizes else None
    if parts is None:
        return None
    where = op.module or op.name
    if not all(n is None or widths.grows(n, p, where) for n, p in zip(named, parts, strict=True)):
        return None
    return Channels(found.axis, parts[index])


def _pieces(op: Op, total: int) -> tuple[list[int], list[object]]:
    """Elements of every piece, and how the forward names them (None where it does not)."""
    given = op.args[1] if len(op.args) > 1 else next(iter((op.kwargs or {}).values()), None)
    if isinstance(given, list | tuple):
        return [int(size) for size in given], list(given)
    if not isinstance(given, int) or given < 1:
        return [], []
    if op.target in ("chunk", "unsafe_chunk", "tensor_split"):
        return ([], []) if total % given else ([total // given] * given, [None] * given)
    return (
        ([], []) if total % given else ([int(given)] * (total // given), [given] * (total // given))
    )


def expanded(
    op: Op, value: Value, sizes: Sequence[object], widths: WidthBuilder
) -> Channels | None:
    """The channel axis of an expansion along other axes; None where it names a channel count."""
    found = value.channels
    assert found is not None
    axis = found.axis + len(op.shape) - len(value.op.shape)
    if op.shape[axis] != value.op.shape[found.axis] or len(sizes) != len(op.shape):
        return None
    grows = sizes[axis] == -1 or widths.grows(sizes[axis], found.width, op.module or op.name)
    others = [size for at, size in enumerate(sizes) if at != axis]
    return found.at(axis) if grows and all(map(widths.stays, others)) else None


def repeated(op: Op, value: Value, widths: WidthBuilder) -> Channels | None:
    """The channel axis where every element is repeated in place, or other axes are repeated."""
    found = value.channels
    assert found is not None
    given = list(op.args[1:])
    if op.target == "repeat_interleave":
        dim = (op.kwargs or {}).get("dim", given[1] if len(given) > 1 else None)
        count = (op.kwargs or {}).get("repeats", given[0] if given else None)
        if not isinstance(dim, int) or not isinstance(count, int) or not widths.stays(count):
            return None
        return channels_on(found.width, found.axis, op.shape[found.axis], widths)
    times = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    axis = found.axis + len(op.shape) - len(value.op.shape)
    alone = len(times) == len(op.shape) and times[axis] == 1
    return found.at(axis) if alone and all(map(widths.stays, times)) else None


def indexed(op: Op, inputs: Sequence[Value]) -> Channels | None:
    """The channel axis behind axes that tensors index, from the first on."""
    found = inputs[0].channels
    items = op.args[1] if len(op.args) > 1 else ()
    items = items if isinstance(items, list | tuple) else (items,)
    if found is None or len(items) > len(inputs) - 1:
        return None
    taken = [len(v.op.shape) if v.op.dtype == "bool" else 1 for v in inputs[1 : 1 + len(items)]]
    if sum(taken) > found.axis:
        return None
    return found.at(found.axis + len(op.shape) - len(inputs[0].op.shape))
