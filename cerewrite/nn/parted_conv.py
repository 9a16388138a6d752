"""Grouped convolutions that write several parts, each with all members in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cerewrite.nn.channel_reorder import ChannelReorder, ConcatConv1d, ConcatConv2d, ConcatConv3d


class PartedConv(nn.Module):
    """What `cerewrite.nn.channel_reorder.PartedLinear` is to a linear layer, to a convolution.

    Args:
        args: of the convolution.
        written: channels of each part of the output, all members together.
        kwargs: of the convolution; its groups are the members.

    Example:
        >>> import torch
        >>> layer = PartedConv2d(4, 8, 1, groups=2, written=(4, 4))
        >>> layer(torch.ones(1, 4, 3, 3)).shape
        torch.Size([1, 8, 3, 3])
    """

    groups: int

    def __init__(self, *args: Any, written: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written = tuple(written)
        self.arrange = ChannelReorder(written, self.groups)
        self.arrange.order = self.arrange.order.argsort()

    def forward(self, input: Tensor) -> Tensor:
        """The convolution's own forward, then the parts side by side."""
        output: Tensor = self.arrange(super().forward(input))
        return output


class PartedConv1d(PartedConv, nn.Conv1d):
    """A `torch.nn.Conv1d` as `PartedConv`."""


class PartedConv2d(PartedConv, nn.Conv2d):
    """A `torch.nn.Conv2d` as `PartedConv`."""


class PartedConv3d(PartedConv, nn.Conv3d):
    """A `torch.nn.Conv3d` as `PartedConv`."""


class ConcatPartedConv1d(ConcatConv1d, PartedConv1d):
    """A `PartedConv1d` behind a `ChannelReorder`."""


class ConcatPartedConv2d(ConcatConv2d, PartedConv2d):
    """A `PartedConv2d` behind a `ChannelReorder`."""


class ConcatPartedConv3d(ConcatConv3d, PartedConv3d):
    """A `PartedConv3d` behind a `ChannelReorder`."""
