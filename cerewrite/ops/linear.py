"""Linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, Geometry, LayerRule, Value, WidthBuilder, register
from cerewrite.ops.layout import bound
from cerewrite.ops.surgery import linear as surgery


@register
class Linear(LayerRule):
    """``y = W x + b`` over the last axis; weight ``[out, in]``."""

    name = "linear"
    targets = frozenset({"linear"})
    modules = (nn.Linear,)
    split = staticmethod(surgery.split_linear)
    member = staticmethod(surgery.linear_member)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        inner = x.channels.inner if x.channels is not None else 1
        return Geometry(weight[1] // inner, weight[0], 1, inner)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = inputs[0]
        last = len(x.op.shape) - 1
        if x.channels is not None and x.channels.axis != last:
            bound(op, x, widths, "is applied to an axis other than the channels")
            x = Value(x.op, None)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(len(op.shape) - 1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        x = context.read(inputs[0])
        return context.weigh(context.layers[op.name], x)


@register
class LinearTurned(Linear):
    """``y = x W + b`` with ``W [in, out]``: written as a product, or a layer that holds it so.

    What holds a weight this way is no module that can be rebuilt: its widths are kept.
    """

    name = "linear_turned"
    targets = frozenset({"linear_turned"})

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        return super().geometry(op, x, weight[::-1])
