"""PReLU: one slope for all channels, or one per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, ModuleRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import bound
from cerewrite.ops.modules import Draw
from cerewrite.ops.own_forwards import expect
from cerewrite.ops.resizing import dtype_of, fill, part, slice_channels


@register
class PReLU(ModuleRule):
    """PReLU: one slope for all channels, or one per channel."""

    name = "prelu"
    modules = (nn.PReLU,)
    targets = frozenset({"prelu"})
    keeps = Saved(reads=True)
    cases = (
        module_case(lambda: nn.PReLU(4), (3, 4, 2)),
        module_case(lambda: nn.PReLU(), (3, 4)),
    )
    leaves = ((nn.PReLU, "prelu"),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if _slopes(op, inputs, widths) > 1:
            if replace(value.channels, width=0) != Channels(1, 0):
                bound(op, value, widths, "has one slope per element of a mixed axis")
            else:
                widths.per_channel(op, self, value.channels)
        return value.channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        slope = context.slope(op)

        def function(z: Tensor) -> Tensor:
            return nn.functional.leaky_relu(z, slope)

        return context.apply(function, ("prelu", slope), inputs[0])

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """A single shared slope stays single."""
        prelu = expect(module, (nn.PReLU,))
        size = multiplicity * width if prelu.num_parameters > 1 else 1
        resized = nn.PReLU(size, device="meta", dtype=dtype_of(prelu))
        return fill(resized, prelu, size, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        prelu = expect(module, (nn.PReLU,))
        shared = prelu.num_parameters == 1
        width = 1 if shared else prelu.num_parameters // multiplicity
        narrow = nn.PReLU(width, device="meta", dtype=dtype_of(prelu))
        own = part(0 if shared else index, width)
        return slice_channels(narrow, prelu, weight=prelu.weight[own])

    @override
    def perturb(self, module: nn.Module, normal: Draw, uniform: Draw) -> None:
        """Slopes move by 0.1."""
        weight = module.get_parameter("weight")
        weight.add_(0.1 * normal(weight))


def _slopes(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> int:
    """How many slopes a PReLU has."""
    if len(inputs) > 1:
        return inputs[1].op.numel
    module = widths.module(op)
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if weight is not None else 1
