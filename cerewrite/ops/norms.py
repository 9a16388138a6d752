"""Normalisation: batch, instance, layer, group and RMS norms, and PReLU's per-channel slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import normalise, normalise_batch
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import OPRULES, Channels, ModuleRule, Value, WidthBuilder, register
from cerewrite.ops.layout import axis_order, bound
from cerewrite.ops.surgery import norms as surgery
from cerewrite.ops.surgery.channel_norm import channel_norm_member, resize_channel_norm
from cerewrite.ops.surgery.resized_copy import bound_to_width, has_own_forward


class _Norm(ModuleRule):
    """``q = gamma^2 + beta^2`` and ``T = gamma^2 T / q``: the input's scale is divided out.

    Attributes:
        centred: whether it subtracts the mean over units.
    """

    centred: ClassVar[bool] = True

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return normalise(context, op, inputs[0], centred=self.centred)


@register
class BatchNorm(_Norm):
    """Batch and instance norms: one mean, variance, scale and shift per channel."""

    name = "batch_norm"
    forwards = True
    modules = (
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
    )
    targets = frozenset(
        {"batch_norm", "instance_norm", "_native_batch_norm_legit", "native_batch_norm"}
    )
    resize = staticmethod(surgery.resize_batch_norm)
    member = staticmethod(surgery.batch_norm_member)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if value.channels.axis != 1 or value.channels.inner != 1:
            bound(op, value, widths, "normalises an axis other than the channels")
            return None
        widths.per_channel(op, self, value.channels)
        return value.channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return normalise_batch(context, op, inputs[0])


@register
class GroupNorm(_Norm):
    """Group norm: every member gets whole groups of its own."""

    name = "group_norm"
    forwards = True
    least = 2
    mixes = True
    modules = (nn.GroupNorm,)
    targets = frozenset({"group_norm", "native_group_norm"})
    resize = staticmethod(surgery.resize_group_norm)
    member = staticmethod(surgery.group_norm_member)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if value.channels.axis != 1 or value.channels.inner != 1:
            bound(op, value, widths, "normalises an axis other than the channels")
            return None
        widths.per_channel(op, self, value.channels)
        return value.channels


class _LastAxisNorm(_Norm):
    """A norm over the last axis, which must be the channels: one norm per member."""

    least = 2
    mixes = True

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        last = value.channels.axis == len(op.shape) - 1
        shape = op.args[1] if len(op.args) > 1 else (op.shape[-1],)
        if not last or value.channels.inner != 1 or len(tuple(shape)) != 1:
            bound(op, value, widths, "normalises over more than the channel axis")
        else:
            self.note(op, value.channels, widths)
        return value.channels

    def note(self, op: Op, channels: Channels, widths: WidthBuilder) -> None:
        """Note the module that ran the norm."""
        widths.per_channel(op, self, channels)


@register
class LayerNorm(_LastAxisNorm):
    """Layer norm over the channels: one norm per member in an ensemble."""

    name = "layer_norm"
    modules = (nn.LayerNorm,)
    targets = frozenset({"layer_norm", "native_layer_norm"})
    resize = staticmethod(surgery.resize_layer_norm)
    member = staticmethod(surgery.layer_norm_member)

    @override
    def note(self, op: Op, channels: Channels, widths: WidthBuilder) -> None:
        module = widths.module(op)
        if isinstance(module, nn.LayerNorm) and _is_channels_first(widths.body(op)):
            widths.per_channel(op, _CHANNEL_NORM, channels, types=(type(module),))
        elif isinstance(module, nn.LayerNorm) and _is_stock(op, widths.body(op), module):
            widths.per_channel(op, _OWN_NORM, channels, types=(type(module),))
        else:
            widths.per_channel(op, self, channels)


class OwnLayerNorm(LayerNorm):
    """A layer norm whose module writes the stock forward anew."""

    name = "own_layer_norm"
    targets = frozenset()
    resize = staticmethod(surgery.resize_own_layer_norm)


class ChannelLayerNorm(LayerNorm):
    """A layer norm whose module permutes images' channels last and back."""

    name = "channel_layer_norm"
    targets = frozenset()
    resize = staticmethod(resize_channel_norm)
    member = staticmethod(channel_norm_member)


_CHANNEL_NORM = ChannelLayerNorm()
OPRULES.register(ChannelLayerNorm.name, _CHANNEL_NORM)
_OWN_NORM = OwnLayerNorm()
OPRULES.register(OwnLayerNorm.name, _OWN_NORM)


def _is_stock(op: Op, body: Sequence[Op], module: nn.LayerNorm) -> bool:
    """Whether all that a forward of a subclass's own runs is one layer norm with its settings."""
    named = op.kwargs or {}
    eps = op.args[4] if len(op.args) > 4 else named.get("eps", 1e-5)
    tensors = 1 + len(list(module.parameters(recurse=False)))
    own = has_own_forward(module, (nn.LayerNorm,))
    same = len(body) == 1 and eps == module.eps and len(op.inputs) == tensors
    return own and same and bound_to_width(module, (nn.LayerNorm,)) is None


def _is_channels_first(body: Sequence[Op]) -> bool:
    """Whether a module's operators are: axis 1 to the end, a layer norm, and back."""
    if len(body) != 3 or {body[0].target, body[2].target} != {"permute"}:
        return False
    rank = len(body[0].shape)
    last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    return axis_order(body[0], rank) == last and axis_order(body[2], rank) == first


@register
class RMSNorm(_LastAxisNorm):
    """RMS norm over the channels: one norm per member in an ensemble."""

    name = "rms_norm"
    centred = False
    modules = (nn.RMSNorm,)
    targets = frozenset({"rms_norm"})
    resize = staticmethod(surgery.resize_rms_norm)
    member = staticmethod(surgery.rms_norm_member)


@register
class PReLU(ModuleRule):
    """PReLU: one slope for all channels, or one per channel."""

    name = "prelu"
    modules = (nn.PReLU,)
    targets = frozenset({"prelu"})
    resize = staticmethod(surgery.resize_prelu)
    member = staticmethod(surgery.prelu_member)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if _slopes(op, inputs, widths) > 1:
            if value.channels.axis != 1 or value.channels.inner != 1:
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


def _slopes(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> int:
    """How many slopes a PReLU has."""
    if len(inputs) > 1:
        return inputs[1].op.numel
    module = widths.module(op)
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if weight is not None else 1
