"""Slices, chunks, splits, expansions: some of a value's elements, or copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.slices import between
from cerewrite.kernel.values import Moments, pick
from cerewrite.ops.base import Channels, Saved, Value, WidthBuilder, register
from cerewrite.ops.branches import branch
from cerewrite.ops.cases import function_case
from cerewrite.ops.cuts import CUTS, expanded, indexed, piece, repeated
from cerewrite.ops.layout import Passing, bound
from cerewrite.ops.tables import Tables
from cerewrite.ops.views import named_sizes

_SHARING = CUTS - {"tensor_split"} | {
    "getitem", "slice", "select", "unbind", "expand", "expand_as", "narrow",
}  # fmt: skip
"""Those whose output is a view."""
_COPYING = frozenset({"index", "index_select", "roll", "flip", "repeat"})
"""Those whose backward needs no tensor of theirs."""


@register
class Pick(Passing):
    """Slices, chunks, splits, expansions: followed off the channel axis, refused on it."""

    name = "pick"
    targets = frozenset(
        {
            "getitem", "slice", "select", "chunk", "split", "split_with_sizes", "unbind",
            "expand", "expand_as", "repeat", "roll", "flip", "index", "gather", "narrow",
            "unsafe_chunk", "unsafe_split", "index_select", "tensor_split",
            "tile", "repeat_interleave", "unfold", "im2col",
        }
    )  # fmt: skip
    cases = (
        function_case(lambda x: x[:, 1:], (2, 4)),
        function_case(lambda x: x.flip(1), (2, 4)),
        function_case(lambda x: x.chunk(2, 1)[0], (2, 4)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        found = value.channels
        if found is None:
            return _rows(op, inputs, widths)
        if op.target == "getitem" and not value.op.shape:
            if value.op.target in CUTS and found.axis in (_touched(value.op, len(op.shape)) or ()):
                return piece(value.op, value, op.args[1], widths)
            return found  # one of several outputs, each with the same channel axis
        touched = _touched(op, len(value.op.shape))
        if op.target in CUTS and touched == {found.axis}:
            if piece(op, value, 0, widths) is not None:
                return found
        elif touched is None and (other := _beside(op, inputs, widths)) is not None:
            return other
        if touched is None or found.axis in touched:
            _refuse(op, value, widths)
            return None
        moved = sum(axis < found.axis for axis in touched) if op.target in _REMOVING else 0
        return replace(found, axis=found.axis - moved)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        """Pieces along the channels are other units; all else passes."""
        source = context.operand(op)
        if op.target == "slice":
            return between(op, inputs[0], context)
        if op.target == "select" or source.target == "unbind":
            return _one_branch(op, inputs[0], context)
        if op.target != "getitem" or source.target not in CUTS:
            return inputs[0]
        whole = context.operand(source).shape
        channels = context.channel_axis(context.operand(source))
        if len(op.shape) != len(whole) or op.shape[channels] == whole[channels]:
            return inputs[0]
        return pick(inputs[0], op.shape[channels] / whole[channels])

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        shares = op.target in _SHARING
        return Saved(shares=shares, output=not shares and op.target not in _COPYING)


def _one_branch(op: Op, x: Moments, context: MomentContext) -> Moments:
    """The units at one place of an axis that branches are stacked on."""
    picks = op if op.target == "select" else context.operand(op)
    found, index = _touched(picks, len(context.operand(picks).shape)), op.args[-1]
    if found is None or not isinstance(index, int):
        return x
    (axis,) = found
    return branch(x, picks, axis, index, context.find)


def _rows(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """Rows of a parameter, such as a table of positions: its columns are channels."""
    table = inputs[0].op
    if table.target != "parameter" or len(table.shape) != 2 or op.shape[-1:] != table.shape[1:]:
        return None
    first = _touched(op, 2) == {0} or (op.target == "index" and len(inputs) == 2)
    if not first or len(op.shape) < 2:
        return None
    width = widths.rows(op, table, Tables())
    return None if width is None else Channels(len(op.shape) - 1, width)


def _as_wide(op: Op, value: Value, other: Value, widths: WidthBuilder) -> Channels | None:
    """Expanded along other axes to the shape of a value with the same channels."""
    found, like = value.channels, other.channels
    if found is None or like is None or found.unit != like.unit or found.inner != like.inner:
        return None
    moved = found.axis + len(op.shape) - len(value.op.shape)
    if like.axis != moved or value.op.shape[found.axis] != op.shape[moved]:
        return None
    width = widths.tie(found.width, like.width, "expand_as", op.module or op.name)
    return replace(found, axis=moved, width=width)


def _beside(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """The channel axis of copies and picks along other axes."""
    if op.target == "expand":
        return expanded(op, inputs[0], named_sizes(op), widths)
    if op.target == "expand_as" and len(inputs) == 2:
        return _as_wide(op, inputs[0], inputs[1], widths)
    if op.target in ("repeat", "tile", "repeat_interleave"):
        return repeated(op, inputs[0], widths)
    return indexed(op, inputs) if op.target == "index" else None


def _refuse(op: Op, value: Value, widths: WidthBuilder) -> None:
    """Pin a class whose channels are divided, picked out or repeated."""
    assert value.channels is not None
    where = op.module or op.name
    named = _fixed_sizes(op)
    if named:
        reason = f"'{op.target}' names sizes by numbers: {named}"
        advice = "read them off the module's attributes or a tensor's shape, or write -1"
        widths.pin(value.channels.width, where, "fixed-view", reason, advice)
        return
    if op.target not in ("chunk", "split", "split_with_sizes", "tensor_split"):
        bound(op, value, widths, "picks out or repeats channels")
        return
    widths.pin(
        value.channels.width,
        op.module or op.name,
        "channel-split",
        f"'{op.target}' divides its channels between branches, across the members",
        "let one layer per branch write its channels, instead of one layer for all",
    )


def _fixed_sizes(op: Op) -> list[object]:
    """The sizes that an expansion or a cut along the channels names."""
    if op.target == "expand":
        return named_sizes(op)
    if op.target in ("split", "split_with_sizes") and len(op.args) > 1:
        given = op.args[1]
        return list(given) if isinstance(given, list | tuple) else [given]
    return []


def _touched(op: Op, rank: int) -> set[int] | None:
    """The axes along which an operator picks, moves or splits; None where that is not known."""
    if op.target not in _AXES:
        return None
    position, name, default = _AXES[op.target]
    given = (op.kwargs or {}).get(name, default)
    found = op.args[position] if len(op.args) > position else given
    axes = [found] if isinstance(found, int) else found
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        return None
    return {axis % rank for axis in axes} if rank and axes else None


_AXES: dict[str, tuple[int, str, int | None]] = {
    "slice": (1, "dim", 0),
    "narrow": (1, "dim", None),
    "select": (1, "dim", None),
    "index_select": (1, "dim", None),
    "unbind": (1, "dim", 0),
    "flip": (1, "dims", None),
    "roll": (2, "dims", None),
    "chunk": (2, "dim", 0),
    "split": (2, "dim", 0),
    "split_with_sizes": (2, "dim", 0),
    "tensor_split": (2, "dim", 0),
}
"""Where operators name their axes: position, keyword, default."""
_REMOVING = ("select", "unbind")
"""Of these, the ones whose axis is gone afterwards."""
