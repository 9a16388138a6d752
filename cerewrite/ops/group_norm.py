"""Group norms."""

from __future__ import annotations

from torch import nn
from typing_extensions import override

from cerewrite.ops.base import register
from cerewrite.ops.cases import module_case
from cerewrite.ops.norms import ChannelNorm
from cerewrite.ops.own_forwards import expect, has_own_forward, per_channel_copy
from cerewrite.ops.resizing import (
    check_size,
    dtype_of,
    fill,
    own_settings,
    part,
    slice_channels,
)


@register
class GroupNorm(ChannelNorm):
    """Group norm: every member gets whole groups of its own."""

    name = "group_norm"
    forwards = True
    least = 2
    mixes = True
    modules = (nn.GroupNorm,)
    targets = frozenset({"group_norm", "native_group_norm"})
    cases = (
        module_case(lambda: nn.GroupNorm(2, 4), (3, 4, 2, 2)),
        module_case(lambda: nn.GroupNorm(1, 4, affine=False), (3, 4, 3)),
    )
    leaves = ((nn.GroupNorm, "group_norm"),)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """A member gets as many groups as divide its channels, at most the original's number.

        None is smaller than the original's (a group of one channel at one position would be zero).
        """
        norm = expect(module, (nn.GroupNorm,), forwards=True)
        size = multiplicity * width
        groups = multiplicity * _groups(norm, width)
        return fill(_group_norm_like(norm, groups, size), norm, size, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        norm = expect(module, (nn.GroupNorm,), forwards=True)
        check_size(norm, "groups left over", norm.num_groups % multiplicity, 0)
        width = norm.num_channels // multiplicity
        groups = norm.num_groups // multiplicity
        narrow = _group_norm_like(norm, groups, width)
        return slice_channels(narrow, norm, **own_settings(norm, part(index, width)))


def _group_norm_like(norm: nn.GroupNorm, groups: int, size: int) -> nn.GroupNorm:
    if has_own_forward(norm, (nn.GroupNorm,)):
        return per_channel_copy(norm, size, num_channels=size, num_groups=groups)
    return nn.GroupNorm(groups, size, norm.eps, norm.affine, device="meta", dtype=dtype_of(norm))


def _groups(norm: nn.GroupNorm, width: int) -> int:
    """Groups of one member of ``width`` channels."""
    smallest = norm.num_channels // norm.num_groups
    fitting = (
        g for g in range(norm.num_groups, 0, -1) if width % g == 0 and width // g >= smallest
    )
    return next(fitting, 1)
