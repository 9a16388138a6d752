"""Convolutions in one, two and three dimensions, any stride, padding, dilation and groups.

In an ensemble entries and exits are dense, interiors have one group per member.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from torch import nn
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op, RegionLayer
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import centred
from cerewrite.kernel.values import Moments
from cerewrite.nn import (
    NarrowConv1d,
    NarrowConv2d,
    NarrowConv3d,
    ScaledConv1d,
    ScaledConv2d,
    ScaledConv3d,
    narrow,
)
from cerewrite.nn.channel_reorder import ConcatConv1d, ConcatConv2d, ConcatConv3d
from cerewrite.nn.parted_conv import (
    ConcatPartedConv1d,
    ConcatPartedConv2d,
    ConcatPartedConv3d,
    PartedConv,
    PartedConv1d,
    PartedConv2d,
    PartedConv3d,
)
from cerewrite.nn.weight_read import WeightedConv, weight_read
from cerewrite.ops.base import Channels, LayerRule, Value, WidthBuilder, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import on_axis
from cerewrite.ops.modules import ConcatenationLayer, Geometry, ResizableModule, SampledLayer
from cerewrite.ops.own_forwards import expect, filter_settings, has_own_forward, resized_copy
from cerewrite.ops.resizing import (
    check_size,
    convolution_options,
    empty_like,
    fill_filters,
    filter_names,
    member_bias,
    part,
    slice_channels,
    split_convolution,
    take_parameters,
)
from cerewrite.ops.standardised import STANDARDISED, derived, level_of, standardises

AnyConv = nn.Conv1d | nn.Conv2d | nn.Conv3d

_TARGETS = frozenset({"conv1d", "conv2d", "conv3d"})
_MODULES: tuple[type[AnyConv], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SCALED: tuple[type[AnyConv], ...] = (ScaledConv1d, ScaledConv2d, ScaledConv3d)
_CONCATENATED: dict[type[AnyConv], type[Any]] = {
    nn.Conv1d: ConcatConv1d,
    nn.Conv2d: ConcatConv2d,
    nn.Conv3d: ConcatConv3d,
}
_PARTED: dict[type[AnyConv], tuple[type[Any], type[Any]]] = {
    nn.Conv1d: (PartedConv1d, ConcatPartedConv1d),
    nn.Conv2d: (PartedConv2d, ConcatPartedConv2d),
    nn.Conv3d: (PartedConv3d, ConcatPartedConv3d),
}
"""What writes several parts; over a concatenation."""


def _any_conv(module: nn.Module) -> AnyConv:
    """The module, if it is a convolution, perhaps in a forward of its own."""
    if isinstance(module, PartedConv):
        return module  # type: ignore[return-value]  # all of its subclasses are convolutions
    return expect(module, (*_SCALED, *_MODULES), forwards=True)


def _stock(conv: AnyConv) -> type[Any]:
    return next(stock for stock in _MODULES if isinstance(conv, stock))


def _geometry(op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
    read = x.op.shape[-len(weight) + 1]
    return Geometry(read, weight[0], read // weight[1], prod(weight[2:]))


def _conv_like(
    module: AnyConv,
    channels: tuple[int, int],
    groups: int,
    *,
    bias: bool,
    kind: type[Any] | None = None,
    **further: Any,
) -> AnyConv:
    """A convolution with the kernel, stride, padding and dilation of another, on meta.

    A subclass with a forward of its own stays one.

    Args:
        module: the convolution to resemble.
        channels: input and output channels.
        groups: groups.
        bias: whether it has a bias.
        kind: its type; the stock type of the other if not given.
        further: arguments of that type alone.
    """
    parted = isinstance(module, PartedConv)
    if kind is None and not parted and has_own_forward(module, (*_SCALED, *_MODULES)):
        n_in, n_out = channels
        shapes = {"weight": (n_out, n_in // groups, *module.kernel_size), "bias": (n_out,)}
        shapes |= filter_settings(module, n_out)
        numbers: dict[str, Any] = {"in_channels": n_in, "out_channels": n_out, "groups": groups}
        return resized_copy(module, shapes, **numbers, **derived(module, n_in, n_out, groups))
    further |= convolution_options(module, "padding_mode")
    conv: AnyConv = (kind or _stock(module))(*channels, groups=groups, bias=bias, **further)
    return conv


@register
class Conv(LayerRule, ConcatenationLayer):
    """``y = W * x + b``; weight ``[out, in / groups, *kernel]``.

    One weight sample serves all positions, so it acts like a dense layer of the same channel
    counts (docs/theory.md, section 6). A convolution with as many groups as channels is
    `DepthwiseConv`.
    """

    name = "conv"
    targets = _TARGETS
    leaves = (
        (nn.Conv1d, "conv1d"),
        (nn.Conv2d, "conv2d"),
        (nn.Conv3d, "conv3d"),
        (NarrowConv1d, "conv1d"),
        (NarrowConv2d, "conv2d"),
        (NarrowConv3d, "conv3d"),
    )
    modules = _MODULES
    forwards = True
    parted = True
    cases = (
        module_case(lambda: nn.Conv1d(4, 6, 3), (2, 4, 7)),
        module_case(lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), (2, 4, 5, 5)),
        module_case(lambda: nn.Conv3d(2, 4, 2, bias=False), (1, 2, 3, 4, 3)),
        module_case(lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
    )

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        return _geometry(op, x, weight)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = on_axis(op, inputs[0], widths, 1)
        geometry = _geometry(op, x, widths.weight(op, inputs))
        if geometry.groups == geometry.in_channels == geometry.out_channels > 1:
            return _depthwise(op, x, widths)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        layer = context.layers[op.name]
        if STANDARDISED not in (op.kwargs or {}):
            return context.weigh(layer, context.read(inputs[0]))
        if layer.in_channels == layer.groups > 1:
            raise NoClosedFormError(
                f"no closed form for '{layer.name}': it takes the mean of each channel's own few "
                "weights away",
                advice=NoClosedFormError.ADVICE,
            )
        level = level_of(context.module(op))
        return context.weigh(layer, context.read(centred(context, inputs[0])), level)

    @override
    def level(self, module: nn.Module) -> float:
        return level_of(module) if standardises(module) else 1.0

    @override
    def split(
        self, module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
    ) -> nn.Module:
        conv = _any_conv(module)
        like: Callable[..., AnyConv] = _conv_like
        if layer.role == "interior" and len(layer.writes) > 1 and multiplicity > 1:
            kind, _ = _PARTED[_stock(conv)]
            written = layer.parts(multiplicity * widths[layer.target])
            like = partial(_conv_like, kind=kind, written=written)
        return narrow(split_convolution(conv, layer, multiplicity, widths, like))

    @override
    def narrow(
        self, module: nn.Module, shape: tuple[int, ...], groups: int, *, bias: bool
    ) -> nn.Module:
        return _conv_like(_any_conv(module), (shape[1] * groups, shape[0]), groups, bias=bias)

    @override
    def member(
        self,
        module: nn.Module,
        layer: RegionLayer,
        index: int,
        multiplicity: int,
        widths: tuple[int, ...],
    ) -> nn.Module:
        """An exit that computes its weight does so from all members': each adds up its part."""
        narrow = super().member(module, layer, index, multiplicity, widths)
        if layer.role != "exit" or not standardises(module):
            return narrow
        wide = copy.deepcopy(_any_conv(module)).double()
        read, bias = weight_read(wide), member_bias(wide.bias, layer, index, widths)
        assert read is not None and isinstance(narrow, _MODULES), module
        return WeightedConv(narrow, read.chunk(multiplicity, 1)[index].clone(), bias)

    @override
    def reordering(self, module: nn.Module, parts: tuple[int, ...]) -> nn.Module:
        if isinstance(module, PartedConv):
            conv, written = _any_conv(module), module.written
            _, kind = _PARTED[_stock(conv)]
            return take_parameters(_same(conv, kind=kind, parts=parts, written=written), conv)
        conv = expect(module, _MODULES)
        return take_parameters(_same(conv, kind=_CONCATENATED[_stock(conv)], parts=parts), conv)

    @override
    def plain(self, module: nn.Module) -> nn.Module:
        kind = next(kind for kind, own in _CONCATENATED.items() if isinstance(module, own))
        assert isinstance(module, kind)
        return narrow(take_parameters(_same(module, kind=kind), module))


def _same(conv: AnyConv, **kind: Any) -> AnyConv:
    """A convolution of another kind with the sizes of one."""
    channels = conv.in_channels, conv.out_channels
    return _conv_like(conv, channels, conv.groups, bias=conv.bias is not None, **kind)


def _depthwise(op: Op, x: Value, widths: WidthBuilder) -> Channels | None:
    """A depthwise convolution writes the class that it reads, or the parts of a concatenation."""
    width = widths.layer(op, _DEPTHWISE, x, same_width=True)
    return None if width is None else Channels(1, width)


@register
class DepthwiseConv(ResizableModule, SampledLayer):
    """One kernel per channel: a sampled layer that belongs to a single width class."""

    name = "depthwise_conv"
    modules = _MODULES
    forwards = True
    cases = (module_case(lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        return _geometry(op, x, weight)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """With as many groups as channels; parameters are not drawn."""
        conv = _any_conv(module)
        check_size(conv, "groups", conv.groups, conv.in_channels)
        check_size(conv, "output channels", conv.out_channels, conv.in_channels)
        size = multiplicity * width
        new = _conv_like(conv, (size, size), size, bias=conv.bias is not None)
        return fill_filters(empty_like(new, conv), conv, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        conv = _any_conv(module)
        width = conv.in_channels // multiplicity
        own = part(index, width)
        bias = None if conv.bias is None else conv.bias[own]
        narrow = _conv_like(conv, (width, width), width, bias=bias is not None)
        further = {name: conv.get_parameter(name)[own] for name in filter_names(conv)}
        return slice_channels(narrow, conv, weight=conv.weight[own], bias=bias, **further)


_DEPTHWISE = DepthwiseConv()
