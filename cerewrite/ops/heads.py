"""Products that act head by head, and so member by member."""

from __future__ import annotations

from collections.abc import Sequence

from cerewrite.ir import Op
from cerewrite.ops.base import Channels, Value, WidthBuilder
from cerewrite.ops.layout import bound


def refuse(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> None:
    """Pin every class that an operator mixes."""
    for value in inputs:
        bound(op, value, widths, "mixes channels or positions")


def batched(
    op: Op, inputs: Sequence[Value], widths: WidthBuilder, rank: int, *, grouped: bool = False
) -> Channels | None:
    """The axis of the heads, before the last two, of a product that is taken head by head.

    An operand without channels has one entry for all heads. Of a plain product of two, one may
    have its channels where they are not summed over: the rows of the first, the columns of the
    second; the other has none then.

    Args:
        op: the product.
        inputs: its operands.
        widths: the classes.
        rank: axes of the result, from whose end the operands' axes count.
        grouped: whether several heads of the first operand may share one of the others.
    """
    known = [value for value in inputs if value.channels is not None]
    if not known:
        return None
    ends = [_channels(v).axis - len(v.op.shape) for v in known]
    if len(known) == 1 and len(inputs) == 2 and op.target != "scaled_dot_product_attention":
        kept = -2 if known[0] is inputs[0] else -1
        if ends[0] == kept:
            return _channels(known[0]).at(rank + kept)
    end = ends[0]
    count = op.shape[rank + end] if rank + end >= 0 else 0
    if max(ends) > -3 >= min(ends):
        _share_one(op, known, widths)
        return None
    if end > -3 or any(other != end for other in ends):
        refuse(op, inputs, widths)
        return None
    for value in inputs:
        size = value.op.shape[end] if len(value.op.shape) >= -end else 1
        shared = grouped and size and count % size == 0
        fits = size == count or shared if value.channels is not None else size == 1
        if not fits:
            refuse(op, inputs, widths)
            return None
    width, where = _channels(known[0]).width, op.module or op.name
    for value in known[1:]:
        width = widths.tie(width, _channels(value).width, "attention", where)
    first = next((v for v in known if v.op.shape[end] == count), known[0])
    return _channels(first).at(rank + end)


def _share_one(op: Op, known: Sequence[Value], widths: WidthBuilder) -> None:
    """Pin classes of which one has a single head, by which all heads of the others are met."""
    for value in known:
        widths.pin(
            _channels(value).width,
            op.module or op.name,
            "one-head",
            f"'{op.target}' meets several heads with a value of a single one, which members "
            "cannot share",
            "give the layer several (key) heads, at least one for every member",
        )


def summed(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """An ``einsum`` whose channels have one letter, which stays: each of them by itself."""
    equation = op.args[0] if op.args and isinstance(op.args[0], str) else ""
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    known = [value for value in inputs if value.channels is not None]
    if not known:
        return None
    if not right or "." in equation or len(terms) != len(inputs):
        refuse(op, inputs, widths)
        return None
    letters = {
        term[_channels(value).axis]
        for term, value in zip(terms, inputs, strict=True)
        if value.channels is not None
    }
    letter = letters.pop()
    others = [t for t, v in zip(terms, inputs, strict=True) if v.channels is None and letter in t]
    if letters or letter not in right or others:
        refuse(op, inputs, widths)
        return None
    width = _channels(known[0]).width
    for value in known[1:]:
        width = widths.tie(width, _channels(value).width, "attention", op.module or op.name)
    return _channels(known[0]).at(right.index(letter))


def _channels(value: Value) -> Channels:
    assert value.channels is not None
    return value.channels
