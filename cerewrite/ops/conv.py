"""Convolutions in one, two and three dimensions, any stride, padding, dilation and groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import (
    OPRULES,
    Channels,
    Geometry,
    LayerRule,
    ModuleRule,
    Value,
    WidthBuilder,
    register,
)
from cerewrite.ops.layout import bound
from cerewrite.ops.surgery import conv as surgery
from cerewrite.ops.surgery import depthwise

_TARGETS = frozenset({"conv1d", "conv2d", "conv3d"})
_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _geometry(op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
    read = x.op.shape[-len(weight) + 1]
    return Geometry(read, weight[0], read // weight[1], prod(weight[2:]))


@register
class Conv(LayerRule):
    """``y = W * x + b``; weight ``[out, in / groups, *kernel]``.

    One weight sample serves all positions, so it acts like a dense layer of the same channel
    counts (docs/theory.md, section 6). A convolution with as many groups as channels is
    `DepthwiseConv`.
    """

    name = "conv"
    targets = _TARGETS
    modules = _MODULES
    forwards = True
    split = staticmethod(surgery.split_conv)
    member = staticmethod(surgery.conv_member)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        return _geometry(op, x, weight)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = inputs[0]
        if x.channels is not None and (x.channels.axis != 1 or x.channels.inner != 1):
            bound(op, x, widths, "is applied to an axis other than the channels")
            x = Value(x.op, None)
        geometry = _geometry(op, x, widths.weight(op, inputs))
        if geometry.groups == geometry.in_channels == geometry.out_channels > 1:
            return _DEPTHWISE.channels(op, [x, *inputs[1:]], widths)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        x = context.read(inputs[0])
        return context.weigh(context.layers[op.name], x)


class DepthwiseConv(ModuleRule):
    """One kernel per channel: a sampled layer that belongs to a single width class."""

    name = "depthwise_conv"
    targets = frozenset()
    modules = _MODULES
    forwards = True
    resize = staticmethod(depthwise.resize_depthwise_conv)
    member = staticmethod(depthwise.depthwise_conv_member)

    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        """Channel counts, from the value read and the weight's shape."""
        return _geometry(op, x, weight)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = inputs[0]
        if x.channels is not None and widths.is_concatenation(x.channels.width):
            bound(op, x, widths, "is depthwise over a concatenation")
            x = Value(x.op, None)
        width = widths.layer(op, self, x, same_width=True)
        return None if width is None else Channels(1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        raise AssertionError("the conv rule answers for every convolution")


_DEPTHWISE = OPRULES.register(DepthwiseConv.name, DepthwiseConv())
