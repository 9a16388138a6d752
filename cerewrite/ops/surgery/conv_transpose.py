"""Transposed convolutions in an ensemble; their weight is ``[in, out / groups, *kernel]``."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.nn.scaled import (
    ScaledConvTranspose1d,
    ScaledConvTranspose2d,
    ScaledConvTranspose3d,
    times_scale,
)
from cerewrite.ops.surgery.keeping import check_size, empty_like, expect, part, slice_channels
from cerewrite.ops.surgery.sizes import ensemble_sizes, member_bias

ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
KINDS: tuple[type[ConvTranspose], ...] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
SCALED_KINDS: tuple[type[ConvTranspose], ...] = (
    ScaledConvTranspose1d,
    ScaledConvTranspose2d,
    ScaledConvTranspose3d,
)


def _like(
    module: ConvTranspose, channels: tuple[int, int], groups: int, *, bias: bool
) -> ConvTranspose:
    """A transposed convolution with the geometry of another, on meta."""
    kind: type[Any] = next(kind for kind in KINDS if isinstance(module, kind))
    options: dict[str, Any] = {
        "kernel_size": module.kernel_size,
        "stride": module.stride,
        "padding": module.padding,
        "output_padding": module.output_padding,
        "dilation": module.dilation,
        "device": "meta",
        "dtype": module.weight.dtype,
    }
    conv: ConvTranspose = kind(*channels, groups=groups, bias=bias, **options)
    return conv


def split_conv_transpose(
    module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
) -> nn.Module:
    """The transposed convolution of an ensemble, parameters allocated but not drawn.

    Args:
        module: the original.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.

    Raises:
        RewriteError: if the module is no plain transposed convolution or has other sizes.
    """
    conv = expect(module, KINDS)
    check_size(conv, "kernel elements", prod(conv.kernel_size), layer.kernel)
    own = conv.in_channels, conv.out_channels
    sizes = ensemble_sizes(conv, layer, multiplicity, widths, own)
    groups = multiplicity * layer.groups if layer.role == "interior" else 1
    return empty_like(_like(conv, sizes, groups, bias=conv.bias is not None), conv)


def conv_transpose_member(
    module: nn.Module,
    layer: RegionLayer,
    index: int,
    multiplicity: int,
    widths: tuple[int, ...],
) -> nn.Module:
    """One member's narrow transposed convolution, cut from a split one.

    Args:
        module: what `split_conv_transpose` returned.
        layer: its part in the region.
        index: which member, from 0.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        the member's own; an exit's bias goes to member 0, the others get zeros.
    """
    conv = expect(module, (*SCALED_KINDS, *KINDS))
    weight: Tensor = conv.weight
    if layer.role == "entry":
        weight = weight[:, part(index, widths[layer.target])]
    else:
        weight = times_scale(weight[part(index, layer.reads(widths))], conv)
    bias = member_bias(conv.bias, layer, index, widths)
    n_in, n_out = weight.shape[0], weight.shape[1] * layer.groups
    narrow = _like(conv, (n_in, n_out), layer.groups, bias=bias is not None)
    return slice_channels(narrow.to(weight.dtype), conv, weight=weight, bias=bias)
