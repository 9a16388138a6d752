"""Operators that keep values and only move, drop or copy them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import nn
from typing_extensions import override

from cerewrite.ir import Length, Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.slices import between
from cerewrite.kernel.values import Moments, pick
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import Case, function_case, module_case


class Passing(OpRule):
    """Moments pass unchanged: every unit of the output is a unit of the input."""

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]


def bound(op: Op, value: Value, widths: WidthBuilder, what: str) -> None:
    """Pin a value's class because ``op`` does not act channel by channel on it."""
    if value.channels is not None:
        widths.pin(
            value.channels.width,
            op.module or op.name,
            "not-member-wise",
            f"'{op.target}' {what}",
            "keep this width, or move the operator out of the run of wide layers",
        )


_DROPOUTS = frozenset(
    {
        "dropout", "dropout1d", "dropout2d", "dropout3d", "native_dropout", "alpha_dropout",
        "feature_dropout", "feature_alpha_dropout",
    }
)  # fmt: skip
_COPIES = frozenset({"clone", "float", "type_as"})


@register
class Identity(Passing):
    """Dropout at its mean, copies, casts: the same shape, the same channels."""

    name = "identity"
    targets = frozenset(
        {
            *_DROPOUTS, *_COPIES, "identity", "contiguous", "alias", "lift_fresh_copy", "detach_",
            "to", "_to_copy", "_assert_tensor_metadata", "checkpoint",
        }
    )  # fmt: skip

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """A view, a copy, or a dropout, which keeps its mask; one that drops nothing is a view."""
        if op.target in _DROPOUTS:
            rate = getattr(module, "p", None)
            if (rate if rate is not None else (*op.args, 0.5)[1]) == 0:
                return Saved(shares=True)
            whole = "feature" not in op.target and op.target[-2:] not in ("1d", "2d", "3d")
            return Saved(own=op.numel if whole else prod(op.shape[:2]))
        shares = op.target in ("identity", "alias", "to", "contiguous")
        return Saved(shares=shares, output=not shares and op.target not in _COPIES)

    @override
    def cases(self) -> tuple[Case, ...]:
        return (
            module_case(lambda: nn.Dropout(0.5), (2, 4)),
            module_case(lambda: nn.Dropout(0.0), (2, 4)),
            module_case(lambda: nn.Dropout2d(0.5), (2, 4, 3, 3)),
            function_case(lambda x: x.clone(), (2, 4)),
        )


@register
class Flatten(Passing):
    """Flatten, view, reshape, squeeze: followed where the channel axis stays channel-major.

    A view whose channel axis is written as a number (not -1) may be hard-coded in the model's
    forward: the class is pinned, unless the trace saw the number read off a tensor with the same
    channels (`cerewrite.ir.Length`). A view of another value to that number pins the class too.
    """

    name = "flatten"
    targets = frozenset(
        {"flatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view", "unflatten"}
        | {"reshape_as", "view_as"}
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        found = value.channels and _follow(value.op.shape, op.shape, value.channels)
        _elsewhere(op, found, widths)
        if value.channels is None:
            return None
        if found is None:
            for read in inputs:
                bound(op, read, widths, "mixes the channel axis with others")
        elif len(inputs) > 1:
            return _like(op, found, inputs[1], widths)
        elif op.target in VIEWED and not _open(op, found, widths):
            widths.pin(
                found.width,
                op.module or op.name,
                "fixed-view",
                f"'{op.target}' to {list(op.shape)} names the channel count {op.shape[found.axis]}",
                "write -1 for the channel axis, or use torch.flatten",
            )
        return found

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(shares=True)

    @override
    def cases(self) -> tuple[Case, ...]:
        return (
            module_case(nn.Flatten, (2, 4, 3)),
            function_case(lambda x: x.view(2, -1), (2, 4, 3)),
        )


def _like(op: Op, found: Channels, other: Value, widths: WidthBuilder) -> Channels | None:
    """The shape of another value: the two have the same channels, or both are kept."""
    if other.channels == replace(found, width=other.channels.width if other.channels else -1):
        where = op.module or op.name
        return replace(found, width=widths.tie(found.width, other.channels.width, "view", where))
    for value in (Value(op, found), other):
        bound(op, value, widths, "takes its shape from a value with other channels")
    return None


def named_sizes(op: Op) -> list[object]:
    """The sizes that a view names, -1 among them."""
    sizes = op.args[1] if len(op.args) == 2 and isinstance(op.args[1], list | tuple) else None
    return list(sizes) if sizes is not None else list(op.args[1:])


def _inferred(op: Op, axis: int) -> bool:
    """Whether a view leaves the size of an axis to be inferred (-1)."""
    sizes = named_sizes(op)
    return len(sizes) == len(op.shape) and sizes[axis] == -1


def _open(op: Op, found: Channels, widths: WidthBuilder) -> bool:
    """Whether the channel axis of a view is inferred, or read off a value with the channels."""
    if _inferred(op, found.axis):
        return True
    sizes = named_sizes(op)
    size = sizes[found.axis] if len(sizes) == len(op.shape) else None
    read = widths.read_off(size)
    if not isinstance(size, Length) or not size.exact or len(read) != 1:
        return False
    if found.inner != 1 or read[0].inner != 1:
        return False
    widths.tie(found.width, read[0].width, "view", op.module or op.name)
    return True


def _elsewhere(op: Op, found: Channels | None, widths: WidthBuilder) -> None:
    """Pin the classes whose channel counts a view names for other axes than theirs."""
    if op.target not in VIEWED:
        return
    for axis, size in enumerate(named_sizes(op)):
        if found is not None and found.axis == axis:
            continue
        for channels in widths.read_off(size):
            reason = f"'{op.target}' to {list(op.shape)} has a size made of its channel count"
            widths.pin(
                channels.width,
                op.module or op.name,
                "fixed-view",
                reason,
                "write -1 for that axis, or a number that does not depend on this width",
            )


def leaves_open(op: Op, size: int) -> bool:
    """Whether a view of ``size`` elements on one axis leaves that axis to be inferred."""
    return all(_inferred(op, axis) for axis, length in enumerate(op.shape) if length == size)


def _follow(before: tuple[int, ...], after: tuple[int, ...], channels: Channels) -> Channels | None:
    """Find the channel axis after a reshape: the same lead, the channels first in the rest."""
    lead = 1
    for size in before[: channels.axis]:
        lead *= size
    count = before[channels.axis]
    passed = 1
    for axis, size in enumerate(after):
        if passed == lead and size % count == 0 and (size > 1 or count == 1):
            tail = size // count
            return Channels(axis, channels.width, channels.inner * tail)
        passed *= size
    return None


@register
class Permute(Passing):
    """Transpose and permute: the channel axis moves."""

    name = "permute"
    targets = frozenset({"permute", "transpose", "t", "movedim", "swapaxes", "numpy_T"})

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        order = axis_order(op, len(op.shape))
        if order is None:
            bound(op, value, widths, "moves axes in a way that is not followed")
            return None
        found = value.channels
        return Channels(order.index(found.axis), found.width, found.inner)

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(shares=True)

    @override
    def cases(self) -> tuple[Case, ...]:
        return (function_case(lambda x: x.permute(0, 2, 1), (2, 4, 3)),)


def axis_order(op: Op, rank: int) -> list[int] | None:
    """The permutation an operator applies, or None if it cannot be read off its arguments."""
    order = list(range(rank))
    arguments = op.args[1:]
    if op.target == "permute":
        dims = arguments[0] if isinstance(arguments[0], list | tuple) else arguments
        return [int(dim) % rank for dim in dims]
    if op.target in ("transpose", "swapaxes") and len(arguments) == 2:
        first, second = (int(dim) % rank for dim in arguments)
        order[first], order[second] = order[second], order[first]
        return order
    return order[::-1] if op.target in ("t", "numpy_T") and rank <= 2 else None


VIEWED = ("view", "reshape", "_unsafe_view")
"""Operators that name the sizes of a value anew."""

_CUTS = frozenset(
    {"chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split", "tensor_split"}
)


_SHARING = _CUTS - {"tensor_split"} | {
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
            "cls_token", "unsafe_chunk", "unsafe_split", "index_select", "tensor_split",
            "tile", "repeat_interleave", "unfold", "im2col",
        }
    )  # fmt: skip

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        found = value.channels
        if found is None:
            return None
        if op.target == "getitem" and not value.op.shape:
            return found  # one of several outputs, each with the same channel axis
        touched = _touched(op, len(value.op.shape))
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
        if op.target != "getitem" or source.target not in _CUTS:
            return inputs[0]
        whole = context.operand(source).shape
        channels = len(whole) - 1 if len(whole) <= 3 else 1
        if len(op.shape) != len(whole) or op.shape[channels] == whole[channels]:
            return inputs[0]
        return pick(inputs[0], op.shape[channels] / whole[channels])

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        shares = op.target in _SHARING
        return Saved(shares=shares, output=not shares and op.target not in _COPYING)

    @override
    def cases(self) -> tuple[Case, ...]:
        return (
            function_case(lambda x: x[:, 1:], (2, 4)),
            function_case(lambda x: x.flip(1), (2, 4)),
            function_case(lambda x: x.chunk(2, 1)[0], (2, 4)),
        )


def _refuse(op: Op, value: Value, widths: WidthBuilder) -> None:
    """Pin a class whose channels are divided, picked out or repeated."""
    assert value.channels is not None
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
