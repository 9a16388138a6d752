"""Depthwise convolutions: one kernel per channel, however many channels there are."""

from __future__ import annotations

from torch import nn

from cerewrite.ops.surgery.conv import any_conv, conv_like
from cerewrite.ops.surgery.keeping import check_size, empty_like, part, slice_channels


def resize_depthwise_conv(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """A depthwise convolution for all members' channels, parameters not drawn.

    Args:
        module: the original, with as many groups as channels.
        multiplicity: members.
        width: channels of one member.

    Raises:
        RewriteError: if the module is no plain depthwise convolution.
    """
    conv = any_conv(module)
    check_size(conv, "groups", conv.groups, conv.in_channels)
    check_size(conv, "output channels", conv.out_channels, conv.in_channels)
    size = multiplicity * width
    return empty_like(conv_like(conv, (size, size), size, bias=conv.bias is not None), conv)


def depthwise_conv_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The depthwise convolution of one member's channels.

    Args:
        module: what `resize_depthwise_conv` returned.
        index: which member, from 0.
        multiplicity: members.
    """
    conv = any_conv(module)
    width = conv.in_channels // multiplicity
    own = part(index, width)
    bias = None if conv.bias is None else conv.bias[own]
    narrow = conv_like(conv, (width, width), width, bias=bias is not None)
    return slice_channels(narrow, conv, weight=conv.weight[own], bias=bias)
