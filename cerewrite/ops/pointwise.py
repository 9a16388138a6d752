"""Pointwise functions of one tensor, named or not: any callable the tracer could isolate."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Value, WidthBuilder, register


@register
class Pointwise(OpRule):
    """``y = phi(x)``, unit by unit: keeps the channel axis; moments by quadrature on phi."""

    name = "pointwise"
    targets = frozenset({"pointwise"})

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        key = (op.target, repr(op.args[1:]), repr(op.kwargs))
        return context.apply(op.function, key, inputs[0])
