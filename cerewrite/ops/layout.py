"""Operators that keep values and only move, drop or copy them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case, module_case
from cerewrite.ops.views import VIEWED, divided, joined, merged, named_sizes, whole


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


def on_axis(
    op: Op, value: Value, widths: WidthBuilder, axis: int, *, flattened: bool = False
) -> Value:
    """A layer's input; without channels, which are pinned, if they lie on another axis.

    Args:
        op: the layer.
        value: what it reads.
        widths: the width graph.
        axis: where its channels must be.
        flattened: whether a channel may have several elements there.
    """
    found = value.channels
    if found is not None and found.axis == axis:
        found = whole(found, widths)
    if found is None or (found.axis == axis and (flattened or found.inner == 1)):
        return Value(value.op, found)
    bound(op, value, widths, "is applied to an axis other than the channels")
    return Value(value.op, None)


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
    leaves = (
        (nn.Identity, "identity"),
        (nn.Dropout, "dropout"),
        (nn.Dropout1d, "dropout"),
        (nn.Dropout2d, "dropout"),
        (nn.Dropout3d, "dropout"),
        (nn.AlphaDropout, "dropout"),
    )
    cases = (
        module_case(lambda: nn.Dropout(0.5), (2, 4)),
        module_case(lambda: nn.Dropout(0.0), (2, 4)),
        module_case(lambda: nn.Dropout2d(0.5), (2, 4, 3, 3)),
        function_case(lambda x: x.clone(), (2, 4)),
    )

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
    keeps = Saved(shares=True)
    cases = (
        module_case(nn.Flatten, (2, 4, 3)),
        function_case(lambda x: x.view(2, -1), (2, 4, 3)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            if not widths.later(op):
                pin_named(op, None, widths)
            return None
        found = merged(value.op.shape, op.shape, value.channels, widths)
        if found is not None and len(inputs) > 1:
            return _like(op, found, inputs[1], widths)
        if found is not None and op.target in VIEWED and not _open(op, found, widths):
            _fixed(op, found.width, f"names the channel count {op.shape[found.axis]}", widths)
        if found is None and len(inputs) == 1:
            found = joined(op, value, widths) or divided(op, value, widths)
            if found is None and len(op.shape) > len(value.op.shape) and op.target in VIEWED:
                _fixed(op, value.channels.width, "divides channels by numbers", widths)
                return None
        pin_named(op, found, widths)
        if found is None:
            for read in inputs:
                bound(op, read, widths, "mixes the channel axis with others")
        return found


def _fixed(op: Op, width: int, what: str, widths: WidthBuilder) -> None:
    """Pin a class for a number that may be hard-coded."""
    where, reason = op.module or op.name, f"'{op.target}' to {list(op.shape)} {what}"
    advice = "write -1 for the channel axis, or use torch.flatten"
    if "divides" in what:
        advice = "write -1 for the axis of the heads, or read their number off an attribute"
    widths.pin(width, where, "fixed-view", reason, advice)


def _like(op: Op, found: Channels, other: Value, widths: WidthBuilder) -> Channels | None:
    """The shape of another value: the two have the same channels, or both are kept."""
    if other.channels == replace(found, width=other.channels.width if other.channels else -1):
        where = op.module or op.name
        return replace(found, width=widths.tie(found.width, other.channels.width, "view", where))
    for value in (Value(op, found), other):
        bound(op, value, widths, "takes its shape from a value with other channels")
    return None


def _inferred(op: Op, axis: int) -> bool:
    """Whether a view leaves the size of an axis to be inferred (-1)."""
    sizes = named_sizes(op)
    return len(sizes) == len(op.shape) and sizes[axis] == -1


def _open(op: Op, found: Channels, widths: WidthBuilder) -> bool:
    """Whether the channel axis of a view is inferred, or named by what grows with the channels."""
    sizes = named_sizes(op)
    if len(sizes) != len(op.shape):
        return False
    size = sizes[found.axis]
    return size == -1 or widths.grows(size, found.width, op.module or op.name)


def pin_named(op: Op, found: Channels | None, widths: WidthBuilder) -> None:
    """Pin the classes whose channel counts a view names for other axes than theirs."""
    if op.target not in VIEWED:
        return
    for axis, size in enumerate(named_sizes(op)):
        if (found is not None and found.axis == axis) or widths.stays(size):
            continue
        for width in widths.read_off(size):
            reason = f"'{op.target}' to {list(op.shape)} has a size made of its channel count"
            widths.pin(
                width,
                op.module or op.name,
                "fixed-view",
                reason,
                "write -1 for that axis, or a number that does not depend on this width",
            )


def leaves_open(op: Op, size: int) -> bool:
    """Whether a view of ``size`` elements on one axis leaves that axis to be inferred."""
    return all(_inferred(op, axis) for axis, length in enumerate(op.shape) if length == size)


@register
class Permute(Passing):
    """Transpose and permute: the channel axis moves."""

    name = "permute"
    targets = frozenset({"permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "mT"})
    keeps = Saved(shares=True)
    cases = (function_case(lambda x: x.permute(0, 2, 1), (2, 4, 3)),)

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
        return found.at(order.index(found.axis))


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
    if op.target == "mT":
        return [*order[:-2], rank - 1, rank - 2]
    return order[::-1] if op.target in ("t", "numpy_T") and rank <= 2 else None
