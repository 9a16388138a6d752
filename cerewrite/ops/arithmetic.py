"""Sums and products of branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel import values as algebra
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound


def _aligned(value: Value, rank: int) -> int | None:
    """The channel axis counted from the end, which broadcasting keeps."""
    return None if value.channels is None else value.channels.axis - len(value.op.shape) + rank


def join(op: Op, inputs: Sequence[Value], widths: WidthBuilder, coupling: str) -> Channels | None:
    """Tie the channel axes of two operands that broadcast into one another."""
    first, second = inputs
    rank = len(op.shape)
    if first.channels is None or second.channels is None:
        return _join_one(op, inputs, widths)
    axis = _aligned(first, rank)
    same = (
        axis == _aligned(second, rank)
        and first.op.shape[first.channels.axis] == second.op.shape[second.channels.axis]
    )
    if not same or axis is None:
        for value in inputs:
            bound(op, value, widths, "joins values whose channel axes differ")
        return None
    where = op.module or op.name
    width = widths.tie(first.channels.width, second.channels.width, coupling, where)
    return replace(first.channels, axis=axis, width=width)


def _join_one(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """Only one operand has a followed channel axis: the other must not know the count."""
    rank = len(op.shape)
    known, other = inputs if inputs[0].channels is not None else (inputs[1], inputs[0])
    if known.channels is None:
        return None
    axis = _aligned(known, rank)
    assert axis is not None
    position = axis - rank + len(other.op.shape)
    fixed = position >= 0 and other.op.shape[position] != 1
    if fixed and not widths.free_parameter(known.channels, other, len(known.op.shape)):
        what = "a parameter" if other.is_parameter else "a value"
        widths.pin(
            known.channels.width,
            op.module or op.name,
            "tied-to-fixed-width",
            f"'{op.target}' joins it to {what} of fixed width ('{other.op.name}')",
            "keep this width, or make the other operand a layer that can be resized",
        )
    return known.channels.at(axis)


@register
class Add(OpRule):
    """Residual sums, and sums with a parameter, whose mean square is added."""

    name = "add"
    targets = frozenset({"add", "iadd", "sub", "isub"})
    keeps = Saved()
    cases = (
        function_case(torch.add, (2, 4), (2, 4)),
        function_case(torch.sub, (2, 4), (2, 4)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels if len(inputs) == 1 else join(op, inputs, widths, "add")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        if len(inputs) == 1:
            return inputs[0]
        return algebra.add(inputs[0], inputs[1])


@register
class Multiply(OpRule):
    """Gates and scales: the product of two values, or a value times a parameter."""

    name = "multiply"
    targets = frozenset({"mul", "imul"})
    cases = (
        function_case(torch.mul, (2, 4), (2, 4)),
        function_case(lambda x: 2 * x, (2, 4)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels if len(inputs) == 1 else join(op, inputs, widths, "multiply")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        if len(inputs) == 1:
            return inputs[0]
        return algebra.multiply(*inputs)

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(reads=len(op.inputs) > 1)


@register
class AddProduct(OpRule):
    """``addcmul``: a value plus the product of two others, as scales with a shift are written."""

    name = "addcmul"
    targets = frozenset({"addcmul"})
    cases = (function_case(torch.addcmul, (2, 4), (2, 4), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        product = join(op, inputs[1:], widths, "multiply")
        return join(op, [inputs[0], Value(op, product)], widths, "add")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        base, first, second = inputs
        product = algebra.multiply(first, second)
        factor = (op.kwargs or {}).get("value", 1)
        return algebra.add(base, product if factor == 1 else context.scale(product, factor**2))


@register
class GatedLinearUnit(OpRule):
    """GLU: the first half of the channels, gated by the sigmoid of the second."""

    name = "glu"
    targets = frozenset({"glu"})
    keeps = Saved(reads=True)
    cases = (function_case(nn.functional.glu, (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        bound(op, inputs[0], widths, "gates one half of the channels by the other")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        value, gate = (algebra.pick(inputs[0], 0.5) for _ in range(2))
        return algebra.multiply(value, context.apply(torch.sigmoid, "sigmoid", gate))
