"""Modules that stock torch lacks."""

from cerewrite.nn.block_diagonal import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import ChannelReorder
from cerewrite.nn.held import HeldParameter, get_held, put_held
from cerewrite.nn.member_norm import ChannelLayerNorm, MemberLayerNorm, MemberRMSNorm
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
    "ChannelLayerNorm",
    "ChannelReorder",
    "HeldParameter",
    "MemberLayerNorm",
    "MemberRMSNorm",
    "ScaledConv1d",
    "ScaledConv2d",
    "ScaledConv3d",
    "ScaledLinear",
    "get_held",
    "put_held",
    "scale_of",
    "with_scale",
]
