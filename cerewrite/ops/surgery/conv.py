"""Convolutions in an ensemble: dense entries and exits, grouped interiors."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import ScaledConv1d, ScaledConv2d, ScaledConv3d, times_scale
from cerewrite.ops.surgery.keeping import check_size, empty_like, expect, part, slice_channels
from cerewrite.ops.surgery.resized_copy import has_own_forward, resized_copy
from cerewrite.ops.surgery.sizes import ensemble_sizes, member_bias

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_KINDS: tuple[type[Conv], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SCALED: tuple[type[Conv], ...] = (ScaledConv1d, ScaledConv2d, ScaledConv3d)


def plain_conv(module: nn.Module) -> Conv:
    """The module, if it is a plain convolution.

    Raises:
        RewriteError: if it is not.
    """
    return expect(module, _KINDS)


def any_conv(module: nn.Module) -> Conv:
    """The module, if it is a convolution, perhaps in a forward of its own.

    Raises:
        RewriteError: if it is not.
    """
    return expect(module, (*_SCALED, *_KINDS), forwards=True)


def conv_like(
    module: Conv,
    channels: tuple[int, int],
    groups: int,
    *,
    bias: bool,
    kind: type[Any] | None = None,
    **further: Any,
) -> Conv:
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
    if kind is None and has_own_forward(module, (*_SCALED, *_KINDS)):
        n_in, n_out = channels
        shapes = {"weight": (n_out, n_in // groups, *module.kernel_size), "bias": (n_out,)}
        return resized_copy(module, shapes, in_channels=n_in, out_channels=n_out, groups=groups)
    stock: type[Any] = next(stock for stock in _KINDS if isinstance(module, stock))
    options: dict[str, Any] = {
        "kernel_size": module.kernel_size,
        "stride": module.stride,
        "padding": module.padding,
        "dilation": module.dilation,
        "padding_mode": module.padding_mode,
        "device": "meta",
        "dtype": module.weight.dtype,
    }
    conv: Conv = (kind or stock)(*channels, groups=groups, bias=bias, **options, **further)
    return conv


def split_conv(
    module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
) -> nn.Module:
    """The convolution of an ensemble, parameters allocated but not drawn.

    Args:
        module: the original `torch.nn.Conv1d`, `Conv2d` or `Conv3d`, whatever its groups.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        a convolution of the same type, weight ``[out, in / groups, *kernel]``, with one group
        per member inside and a single group at entries and exits.

    Raises:
        RewriteError: if the module is no plain convolution or has other sizes.
    """
    conv = any_conv(module)
    check_size(conv, "kernel elements", prod(conv.kernel_size), layer.kernel)
    own = conv.in_channels, conv.out_channels
    sizes = ensemble_sizes(conv, layer, multiplicity, widths, own)
    groups = multiplicity * layer.groups if layer.role == "interior" else 1
    return empty_like(conv_like(conv, sizes, groups, bias=conv.bias is not None), conv)


def conv_member(
    module: nn.Module,
    layer: RegionLayer,
    index: int,
    multiplicity: int,
    widths: tuple[int, ...],
) -> nn.Module:
    """One member's narrow convolution, cut from a split one.

    Args:
        module: what `split_conv` returned.
        layer: its part in the region.
        index: which member, from 0.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        a convolution with the member's own groups, mostly one; an exit's bias goes to member
        0, the others get zeros.
    """
    conv = any_conv(module)
    weight: Tensor = conv.weight
    if layer.role == "exit":
        weight = times_scale(weight[:, part(index, layer.reads(widths))], conv)
    else:
        weight = weight[part(index, widths[layer.target])]
    bias = member_bias(conv.bias, layer, index, widths)
    n_out, n_in = weight.shape[0], weight.shape[1] * layer.groups
    narrow = conv_like(conv, (n_in, n_out), layer.groups, bias=bias is not None)
    return slice_channels(narrow.to(weight.dtype), conv, weight=weight, bias=bias)
