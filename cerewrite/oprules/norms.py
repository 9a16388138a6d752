"""Normalisation: batch, instance, layer, group and RMS norms, and PReLU's per-channel slopes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cerewrite.ir import Op
from cerewrite.oprules.base import Channels, ModuleRule, Value, WidthBuilder, register
from cerewrite.oprules.layout import bound
from cerewrite.oprules.moments import MomentContext, Moments
from cerewrite.surgery import norms as surgery


class _Norm(ModuleRule):
    """``q = gamma^2 + beta^2`` and ``T = gamma^2 T / q``: the input's scale is divided out."""

    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        x = inputs[0]
        gain, shift = context.affine(op)
        normed = Moments(gain * x.q / x.q + shift, gain * x.kernel / x.q, x.fresh)
        return context.settle(op, normed)


@register
class BatchNorm(_Norm):
    """Batch and instance norms: one mean, variance, scale and shift per channel."""

    name = "batch_norm"
    targets = frozenset({"batch_norm", "instance_norm", "_native_batch_norm_legit", "native_batch_norm"})

    def channels(
        self, op: Op, inputs: Sequence[Value], widths: WidthBuilder
    ) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if value.channels.axis != 1 or value.channels.inner != 1:
            bound(op, value, widths, "normalises an axis other than the channels")
            return None
        widths.per_channel(op, self, value.channels)
        return value.channels

    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        return surgery.resize_batch_norm(module, multiplicity, width)

    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        return surgery.batch_norm_member(module, index, multiplicity)


@register
class GroupNorm(_Norm):
    """Group norm: every member gets whole groups of its own."""

    name = "group_norm"
    targets = frozenset({"group_norm", "native_group_norm"})

    def channels(
        self, op: Op, inputs: Sequence[Value], widths: WidthBuilder
    ) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if value.channels.axis != 1 or value.channels.inner != 1:
            bound(op, value, widths, "normalises an axis other than the channels")
            return None
        widths.per_channel(op, self, value.channels)
        return value.channels

    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        return surgery.resize_group_norm(module, multiplicity, width)

    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        return surgery.group_norm_member(module, index, multiplicity)


@register
class LayerNorm(_Norm):
    """Layer norm over the last axis: one norm per member in an ensemble."""

    name = "layer_norm"
    targets = frozenset({"layer_norm", "native_layer_norm"})

    def channels(
        self, op: Op, inputs: Sequence[Value], widths: WidthBuilder
    ) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        last = value.channels.axis == len(op.shape) - 1
        shape = op.args[1] if len(op.args) > 1 else (op.shape[-1],)
        if not last or value.channels.inner != 1 or len(tuple(shape)) != 1:
            bound(op, value, widths, "normalises over more than the channel axis")
            return value.channels
        widths.per_channel(op, self, value.channels)
        return value.channels

    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        return surgery.resize_layer_norm(module, multiplicity, width)

    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        return surgery.layer_norm_member(module, index, multiplicity)


@register
class RMSNorm(_Norm):
    """RMS norm: analysed; a width that it normalises is kept."""

    name = "rms_norm"
    targets = frozenset({"rms_norm"})

    def channels(
        self, op: Op, inputs: Sequence[Value], widths: WidthBuilder
    ) -> Channels | None:
        bound(op, inputs[0], widths, "normalises over all members at once")
        return inputs[0].channels

    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        raise AssertionError("a width under an RMS norm is pinned")

    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        raise AssertionError("a width under an RMS norm is pinned")


@register
class PReLU(ModuleRule):
    """PReLU: one slope for all channels, or one per channel."""

    name = "prelu"
    targets = frozenset({"prelu"})

    def channels(
        self, op: Op, inputs: Sequence[Value], widths: WidthBuilder
    ) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if context_slopes(op, inputs, widths) > 1:
            if value.channels.axis != 1 or value.channels.inner != 1:
                bound(op, value, widths, "has one slope per element of a mixed axis")
            else:
                widths.per_channel(op, self, value.channels)
        return value.channels

    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        slope = context.slope(op)

        def function(z):  # type: ignore[no-untyped-def]
            return nn.functional.leaky_relu(z, slope)

        return context.settle(op, context.apply(function, ("prelu", slope), inputs[0]))

    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        return surgery.resize_prelu(module, multiplicity, width)

    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        return surgery.prelu_member(module, index, multiplicity)


def context_slopes(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> int:
    """How many slopes a PReLU has."""
    if len(inputs) > 1:
        return inputs[1].op.numel
    module = widths.module(op)
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if weight is not None else 1
