"""Concatenations: several width classes side by side on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel import values as algebra
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.slices import JOINS, joined_axis, stacked_axis
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound


@register
class Concatenate(OpRule):
    """``cat``: along the channels the classes stand side by side, else they must be equal.

    So they must in a ``stack``, whose axis is a new one. Each part keeps its own class: a member
    then owns a slice of every part, and what reads them inside a region puts the slices together
    (`cerewrite.nn.ChannelReorder`). Moments are means weighted by channels.
    """

    name = "concatenate"
    targets = JOINS | {"stack"}
    keeps = Saved()
    cases = (
        function_case(lambda x, y: torch.cat([x, y], 1), (2, 4), (2, 3)),
        function_case(lambda x, y: torch.concatenate([x, y], 1), (2, 4), (2, 3)),
        function_case(lambda x, y: torch.stack([x, y], 1), (2, 4), (2, 4)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        axis = joined_axis(op)
        if axis is None and op.target != "stack":
            for value in inputs:
                bound(op, value, widths, "joins tensors along an axis that is not followed")
            return None
        known = [value for value in inputs if value.channels is not None]
        if not known:
            return None
        alike = all(value.channels is not None and value.channels.axis == axis for value in inputs)
        if axis is not None and alike:
            return _side_by_side(op, inputs, widths, axis)
        rest = [value for value in inputs if value.channels is None]
        if any(_channels(v).axis == axis for v in known):
            others = (value for value in known if _channels(value).axis != axis)
            _refuse(op, next(iter(rest), None) or next(others), known, widths)
            return None
        found, rank = _channels(known[0]), len(known[0].op.shape)
        for value in rest:
            if not widths.free_parameter(found, value, rank):
                _refuse(op, value, known, widths)
                return None
        joined = _same(op, known, widths)
        if joined is None or op.target != "stack":
            return joined
        return joined.at(joined.axis + (stacked_axis(op) <= joined.axis))

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        parts = list(zip(context.sizes(op), inputs, strict=True))
        return algebra.concatenate(parts, merged=op.target != "stack")


def _channels(value: Value) -> Channels:
    assert value.channels is not None
    return value.channels


def _side_by_side(
    op: Op, inputs: Sequence[Value], widths: WidthBuilder, axis: int
) -> Channels | None:
    """Along the channel axis: the classes one after another."""
    found = [_channels(value) for value in inputs]
    if len({(channels.inner, channels.unit) for channels in found}) > 1:
        for value in inputs:
            bound(op, value, widths, "joins channels of different numbers of elements")
        return None
    if len(found) == 1:
        return found[0]
    width = widths.concatenate([channels.width for channels in found])
    return Channels(axis, width, found[0].inner, found[0].unit)


def _same(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """Along positions or tokens: the parts must have the same channels."""
    found = [_channels(value) for value in inputs]
    if len({(c.axis, v.op.shape[c.axis]) for c, v in zip(found, inputs, strict=True)}) > 1:
        for value in inputs:
            bound(op, value, widths, "joins values whose channel axes differ")
        return None
    width = found[0].width
    for other in found[1:]:
        width = widths.tie(width, other.width, "concatenate", op.module or op.name)
    return replace(found[0], width=width)


def _refuse(op: Op, other: Value, known: Sequence[Value], widths: WidthBuilder) -> None:
    """Pin the parts whose channels are known, for a part whose channels are not."""
    for value in known:
        widths.pin(
            _channels(value).width,
            op.module or op.name,
            "concatenated-with-fixed",
            f"'{op.target}' joins it with '{other.op.name}', whose width is fixed",
            "keep this width, or let a layer that can be resized write the other part",
        )
