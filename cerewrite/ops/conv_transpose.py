"""Transposed convolutions in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, Geometry, LayerRule, Value, WidthBuilder, register
from cerewrite.ops.layout import bound
from cerewrite.ops.surgery import conv_transpose as surgery


@register
class ConvTranspose(LayerRule):
    """Every input position adds its kernel to the output; weight ``[in, out / groups, *kernel]``.

    An output position gets ``kernel * input positions / output positions`` taps of each input
    channel on average, so that ``q`` and ``T`` pass like through a linear layer with that share
    of the fan-in; which positions get more of them is not followed.
    """

    name = "conv_transpose"
    targets = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
    modules = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    split = staticmethod(surgery.split_conv_transpose)
    member = staticmethod(surgery.conv_transpose_member)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        space = len(weight) - 2
        outputs = op.shape[-space - 1]
        read = prod(x.op.shape[-space:])
        return Geometry(weight[0], outputs, outputs // weight[1], prod(weight[2:]), read)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = inputs[0]
        if x.channels is not None and (x.channels.axis != 1 or x.channels.inner != 1):
            bound(op, x, widths, "is applied to an axis other than the channels")
            x = Value(x.op, None)
        elif x.channels is not None and widths.is_concatenation(x.channels.width):
            bound(op, x, widths, "is transposed and reads a concatenation")
            x = Value(x.op, None)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        layer = context.layers[op.name]
        x = context.read(inputs[0])
        share = layer.positions / prod(op.shape[2:])
        thinned = replace(x, q=share * x.q, kernel=share * x.kernel, common=share * x.common)
        return context.weigh(layer, thinned)
