"""Free parameters with one value per channel, joined to a value by a sum or a product."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.nn.parameter_module import ParameterModule
from cerewrite.ops.base import Channels, ModuleRule, Value, WidthBuilder, register
from cerewrite.ops.surgery import free as surgery


@register
class FreeParameter(ModuleRule):
    """A layer scale: a parameter of the model's own with one value per channel."""

    name = "free_parameter"
    targets = frozenset()
    modules = (ParameterModule,)
    resize = staticmethod(surgery.resize_free)
    member = staticmethod(surgery.free_member)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        raise AssertionError("the sum or product that reads it answers for it")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        raise AssertionError("the sum or product that reads it answers for it")
