"""Norms over channels that a forward writes by hand, without scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import divided
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound
from cerewrite.ops.member_forward import MemberForwards, MemberForwardsOfMaps
from cerewrite.ops.quotients import channel_axis


class _Direction(OpRule):
    """``x / sqrt(mean(x^2))`` over the channels; what follows multiplies and adds.

    Attributes:
        centred: whether the mean is taken away first.
    """

    centred: ClassVar[bool]

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        if found is None or found.axis != op.args[1]:
            return found  # within a head, or along positions
        rules = {1: MemberForwardsOfMaps(), len(op.shape) - 1: MemberForwards()}
        rule = rules.get(found.axis)
        if rule is None or not widths.own_forward(op, rule, found):
            bound(op, inputs[0], widths, "norms all channels together, written by hand")
        return found

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        axis, known = op.args[1], channel_axis(op.inputs[0], context.find)
        if axis != (len(op.shape) - 1 if known is None else known):
            raise NoClosedFormError(
                f"no closed form for a norm over positions in '{op.module or op.name}'",
                advice=NoClosedFormError.ADVICE,
            )
        return divided(context, inputs[0], op.target, op.args[2], centred=self.centred)


def _over_root(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


@register
class RMSDirection(_Direction):
    """Over the root of the mean square."""

    name = "rms_direction"
    targets = frozenset({"rms_direction"})
    cases = (function_case(_over_root, (3, 6)),)
    centred = False


@register
class CentredDirection(_Direction):
    """Less the mean, over the deviation."""

    name = "centred_direction"
    targets = frozenset({"centred_direction"})
    cases = (function_case(lambda x: _over_root(x - x.mean(-1, keepdim=True)), (3, 6)),)
    centred = True
