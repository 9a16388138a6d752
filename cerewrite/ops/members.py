"""Modules that a rewrite puts in: block-diagonal linears, norms per member, reordered channels.

Each is one operator, whatever its forward is made of (`OpRule.whole`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import normalise
from cerewrite.kernel.values import Moments
from cerewrite.nn import BlockDiagonalLinear, ChannelLayerNorm, MemberLayerNorm, MemberRMSNorm
from cerewrite.nn.channel_reorder import (
    ChannelReorder,
    ConcatLinear,
    ConcatPartedLinear,
    PartedLinear,
)
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import Case, module_case
from cerewrite.ops.layout import Passing
from cerewrite.ops.linear import Linear
from cerewrite.ops.modules import Geometry


@register
class BlockLinear(Linear):
    """``y = [W_1 x_1, .., W_m x_m] + b`` over the last axis; weight ``[m, in / m, out / m]``."""

    name = "block_linear"
    targets = frozenset({"block_linear"})
    whole = (BlockDiagonalLinear, ConcatLinear, PartedLinear, ConcatPartedLinear)
    modules = (BlockDiagonalLinear,)
    built = (nn.Linear,)
    leaves = ()
    cases = (module_case(lambda: BlockDiagonalLinear(6, 4, 2), (3, 6)),)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        inner = x.channels.inner if x.channels is not None else 1
        members, inputs, outputs = weight
        return Geometry(members * inputs // inner, members * outputs, members, inner)


class _MemberNorm(OpRule):
    """A norm of each member's own features: to leading order that of all features together.

    A member's norm takes away the member's own fluctuation; averaged over the members that is
    what one norm over all features takes away.

    Attributes:
        centred: whether it subtracts the mean over units.
    """

    centred: ClassVar[bool]

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        if found is not None:
            widths.pin(
                found.width,
                op.module,
                "member-norm",
                f"'{op.module}' norms the features of members that are there already",
                "revert the model first, then plan anew",
            )
        return found

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return normalise(context, op, inputs[0], centred=self.centred)


@register
class MemberLayer(_MemberNorm):
    """One layer norm per member."""

    name = "member_layer_norm"
    targets = frozenset({"member_layer_norm"})
    whole = (MemberLayerNorm, ChannelLayerNorm)
    cases = (module_case(lambda: MemberLayerNorm(6, 2), (3, 6)),)
    centred = True


@register
class MemberRMS(_MemberNorm):
    """One RMS norm per member."""

    name = "member_rms_norm"
    targets = frozenset({"member_rms_norm"})
    whole: ClassVar[tuple[type[nn.Module], ...]] = (MemberRMSNorm,)
    cases: ClassVar[tuple[Case, ...]] = (module_case(lambda: MemberRMSNorm(6, 2), (3, 6)),)
    centred = False


@register
class Reorder(Passing):
    """Channels of a concatenation put member by member: the same units, in another order."""

    name = "channel_reorder"
    targets = frozenset({"channel_reorder"})
    whole: ClassVar[tuple[type[nn.Module], ...]] = (ChannelReorder,)
    keeps = Saved()
    cases = (module_case(lambda: ChannelReorder((4, 2), 2), (3, 6)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        if found is not None:
            widths.pin(
                found.width,
                op.module,
                "channel-reorder",
                f"'{op.module}' puts the channels of members side by side that are there already",
                "revert the model first, then plan anew",
            )
        return found
