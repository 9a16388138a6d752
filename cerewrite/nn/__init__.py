"""Modules that stock torch lacks."""

from cerewrite.nn.block_diagonal import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import ChannelReorder
from cerewrite.nn.member_exit import MemberConv, MemberConvTranspose, MemberExit, MemberLinear
from cerewrite.nn.member_norm import ChannelLayerNorm, MemberLayerNorm, MemberNorm, MemberRMSNorm
from cerewrite.nn.multiverse_head import MultiverseHead
from cerewrite.nn.narrow_conv import NarrowConv1d, NarrowConv2d, NarrowConv3d, narrow
from cerewrite.nn.parameter_module import (
    NumberModule,
    ParameterModule,
    get_parameter,
    put_parameter,
)
from cerewrite.nn.scaled import (
    SCALED,
    ScaledConv1d,
    ScaledConv2d,
    ScaledConv3d,
    ScaledLinear,
    scale_of,
    times_scale,
    with_scale,
)

__all__ = [
    "SCALED",
    "BlockDiagonalLinear",
    "ChannelLayerNorm",
    "ChannelReorder",
    "MemberConv",
    "MemberConvTranspose",
    "MemberExit",
    "MemberLayerNorm",
    "MemberLinear",
    "MemberNorm",
    "MemberRMSNorm",
    "MultiverseHead",
    "NarrowConv1d",
    "NarrowConv2d",
    "NarrowConv3d",
    "NumberModule",
    "ParameterModule",
    "ScaledConv1d",
    "ScaledConv2d",
    "ScaledConv3d",
    "ScaledLinear",
    "get_parameter",
    "narrow",
    "put_parameter",
    "scale_of",
    "times_scale",
    "with_scale",
]
