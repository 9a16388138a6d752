"""Concatenations of ensembles: each member's slices of all parts put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.nn.block_diagonal import BlockDiagonalLinear


def member_order(parts: Sequence[int], members: int) -> list[int]:
    """Where each channel comes from when members are to be contiguous.

    Args:
        parts: channels of each part of a concatenation, all members together.
        members: members, whose channels are contiguous within every part.

    Raises:
        UsageError: if a part does not divide into members.

    Example:
        >>> member_order((4, 2), 2)
        [0, 1, 4, 2, 3, 5]
    """
    if members < 1 or any(part % members for part in parts):
        raise UsageError(
            f"parts of {tuple(parts)} channels do not divide into {members} members",
            advice="choose parts that are multiples of the number of members",
        )
    starts = [0, *accumulate(parts)][:-1]
    return [
        channel
        for member in range(members)
        for start, part in zip(starts, parts, strict=True)
        for channel in range(
            start + member * part // members, start + (member + 1) * part // members
        )
    ]


class ChannelReorder(nn.Module):
    """Turns ``[a_1 .. a_m | b_1 .. b_m]`` into ``[a_1 b_1 | .. | a_m b_m]`` along one axis.

    A model that concatenates what ensembles wrote puts the parts side by side; a grouped layer
    needs the members side by side. It has no parameters and one gather.

    Args:
        parts: channels of each part, all members together; multiples of ``members``.
        members: number of members, at least 1.
        axis: the channel axis.

    Shape:
        input and output ``[..., sum of parts, ...]``.

    Raises:
        UsageError: if a part does not divide into members.

    Example:
        >>> ChannelReorder((4, 2), members=2)(torch.arange(6).view(1, 6)).tolist()
        [[0, 1, 4, 2, 3, 5]]
    """

    order: Tensor

    def __init__(self, parts: Sequence[int], members: int, axis: int = 1) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.members = members
        self.axis = axis
        order = torch.tensor(member_order(parts, members))
        self.register_buffer("order", order, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Put each member's channels side by side."""
        return input.index_select(self.axis, self.order)

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"parts={self.parts}, members={self.members}, axis={self.axis}"


class ConcatenationReader(nn.Module):
    """A layer with one block per member that reads a concatenation of what ensembles wrote.

    Attributes:
        reorder: what it does to its input first.
    """

    reorder: ChannelReorder

    def forward(self, input: Tensor, *further: Any, **named: Any) -> Tensor:
        """Reorder the channels, then the layer's own forward."""
        output: Tensor = super().forward(self.reorder(input), *further, **named)
        return output


class _ConcatConv(ConcatenationReader):
    """A grouped convolution that gathers its members' slices first."""

    groups: int

    def __init__(self, *args: Any, parts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reorder = ChannelReorder(parts, self.groups)


class ConcatConv1d(_ConcatConv, nn.Conv1d):
    """A grouped `torch.nn.Conv1d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.Conv1d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.Conv1d`; its groups are the members.
    """


class ConcatConv2d(_ConcatConv, nn.Conv2d):
    """A grouped `torch.nn.Conv2d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.Conv2d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.Conv2d`; its groups are the members.

    Example:
        >>> layer = ConcatConv2d(6, 4, 1, groups=2, parts=(4, 2))
        >>> layer(torch.ones(1, 6, 3, 3)).shape
        torch.Size([1, 4, 3, 3])
    """


class ConcatConv3d(_ConcatConv, nn.Conv3d):
    """A grouped `torch.nn.Conv3d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.Conv3d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.Conv3d`; its groups are the members.
    """


class ConcatConvTranspose1d(_ConcatConv, nn.ConvTranspose1d):
    """A grouped `torch.nn.ConvTranspose1d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.ConvTranspose1d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.ConvTranspose1d`; its groups are the members.
    """


class ConcatConvTranspose2d(_ConcatConv, nn.ConvTranspose2d):
    """A grouped `torch.nn.ConvTranspose2d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.ConvTranspose2d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.ConvTranspose2d`; its groups are the members.
    """


class ConcatConvTranspose3d(_ConcatConv, nn.ConvTranspose3d):
    """A grouped `torch.nn.ConvTranspose3d` behind a `ChannelReorder`.

    Args:
        args: of `torch.nn.ConvTranspose3d`.
        parts: channels of each part of the input, all members together.
        kwargs: of `torch.nn.ConvTranspose3d`; its groups are the members.
    """


class ConcatLinear(ConcatenationReader, BlockDiagonalLinear):
    """A `BlockDiagonalLinear` behind a `ChannelReorder` of the last axis.

    Args:
        args: of `BlockDiagonalLinear`.
        parts: features of each part of the input, all members together.
        kwargs: of `BlockDiagonalLinear`.
    """

    def __init__(self, *args: Any, parts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reorder = ChannelReorder(parts, self.members, axis=-1)


class PartedLinear(BlockDiagonalLinear):
    """A `BlockDiagonalLinear` that writes several parts, each with all members in it.

    A model that cuts the output of one layer into query, key and value, or into the halves of a
    gate, expects the parts one after another; one block per member writes the members so.

    Args:
        args: of `BlockDiagonalLinear`.
        written: features of each part of the output, all members together.
        kwargs: of `BlockDiagonalLinear`.

    Example:
        >>> layer = PartedLinear(4, 8, 2, written=(4, 4))
        >>> layer(torch.ones(1, 4)).shape
        torch.Size([1, 8])
    """

    def __init__(self, *args: Any, written: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written = tuple(written)
        self.arrange = ChannelReorder(written, self.members, axis=-1)
        self.arrange.order = self.arrange.order.argsort()

    def forward(self, input: Tensor) -> Tensor:
        """The layer's own forward, then the parts side by side."""
        output: Tensor = self.arrange(super().forward(input))
        return output


class ConcatPartedLinear(ConcatLinear, PartedLinear):
    """A `PartedLinear` behind a `ChannelReorder` of the last axis.

    Args:
        args: of `BlockDiagonalLinear`.
        parts: features of each part of the input, all members together.
        written: features of each part of the output, likewise.
        kwargs: of `BlockDiagonalLinear`.
    """
