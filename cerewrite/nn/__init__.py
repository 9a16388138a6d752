"""Modules that stock torch lacks."""

from cerewrite.nn.block_diagonal import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import ChannelReorder
from cerewrite.nn.member_norm import MemberLayerNorm, MemberRMSNorm
from cerewrite.nn.scaled import (
    SCALED,
    ScaledConv1d,
    ScaledConv2d,
    ScaledConv3d,
    ScaledLinear,
    scale_of,
    with_scale,
)

__all__ = [
    "SCALED",
    "BlockDiagonalLinear",
    "ChannelReorder",
    "MemberLayerNorm",
    "MemberRMSNorm",
    "ScaledConv1d",
    "ScaledConv2d",
    "ScaledConv3d",
    "ScaledLinear",
    "scale_of",
    "with_scale",
]
