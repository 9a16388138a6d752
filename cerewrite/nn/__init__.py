"""Modules that stock torch lacks."""

from cerewrite.nn.block_diagonal import BlockDiagonalLinear
from cerewrite.nn.member_norm import MemberLayerNorm, MemberRMSNorm

__all__ = ["BlockDiagonalLinear", "MemberLayerNorm", "MemberRMSNorm"]
