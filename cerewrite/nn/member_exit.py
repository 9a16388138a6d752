"""Exits that keep the members apart: every member's own output instead of the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.nn.scaled import scale_of

_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)


def by_member(tensor: Tensor, axis: int, parts: Sequence[int], members: int) -> Tensor:
    """Split an axis of parts side by side, each with all members in it, into members and channels.

    Args:
        tensor: any tensor.
        axis: an axis of ``sum(parts)`` elements.
        parts: elements of each part of a concatenation, all members together.
        members: members, contiguous within every part.

    Returns:
        the tensor with ``[members, sum(parts) / members]`` in the place of that axis.

    Example:
        >>> by_member(torch.arange(6), 0, (4, 2), 2).tolist()
        [[0, 1, 4], [2, 3, 5]]
    """
    if len(parts) == 1:
        return torch.unflatten(tensor, axis, (members, -1))
    pieces = torch.split_with_sizes(tensor, list(parts), axis)
    split = [torch.unflatten(piece, axis, (members, -1)) for piece in pieces]
    return torch.cat(split, axis + 1 if axis >= 0 else axis)


class MemberExit(nn.Module):
    """An exit of an ensemble whose members' outputs are not added up.

    An exit ``y = s sum_j W_j h_j + b`` adds the members' contributions, with s its multiplier (1
    where the weights carry it). Here every member gets ``z_j = m s W_j h_j + b``, so that y is
    the mean of the z_j. The work is the exit's own: one product per member, of its own channels.
    Parameters are the exit's, not copies.

    Args:
        layer: the exit: a linear layer, a convolution or a transposed convolution, scaled or not.
        parts: elements of each part of its input axis, all members together.
        members: members m.
        rows: whether members come as rows, ``[m * batch, ...]``; else ``[m, batch, ...]``.
    """

    def __init__(self, layer: Any, parts: Sequence[int], members: int, *, rows: bool) -> None:
        super().__init__()
        self._parameters = layer._parameters
        self.training = layer.training
        self.parts, self.members, self.rows = tuple(parts), members, rows
        self.factor = members * scale_of(layer)

    def forward(self, input: Tensor, *further: Any) -> Tensor:
        """The exit's input to the members' outputs, ``[m * batch, ...]`` or ``[m, batch, ...]``."""
        outputs = self.apart(input, *further)
        return outputs.flatten(0, 1) if self.rows else outputs

    def apart(self, input: Tensor, *further: Any) -> Tensor:
        """The exit's input to the members' outputs ``[m, batch, ...]``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Members and parts, for ``repr``."""
        return f"members={self.members}, parts={self.parts}, rows={self.rows}"


class MemberLinear(MemberExit):
    """A linear exit, members apart.

    Example:
        >>> layer, x = nn.Linear(6, 2), torch.randn(4, 6)
        >>> apart = MemberLinear(layer, (6,), 3, rows=False)(x)
        >>> apart.shape, torch.allclose(apart.mean(0), layer(x), atol=1e-6)
        (torch.Size([3, 4, 2]), True)
    """

    def apart(self, input: Tensor, *further: Any) -> Tensor:
        """``[batch, ..., in]`` to ``[m, batch, ..., out]``."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        rows = input if input.dim() == 2 else input.flatten(0, -2)
        read = by_member(rows, 1, self.parts, self.members).transpose(0, 1)
        own = by_member(weight, 1, self.parts, self.members).permute(1, 2, 0)
        if bias is None:
            found = self.factor * torch.bmm(read, own)
        else:
            found = torch.baddbmm(bias, read, own, alpha=self.factor)
        return found if input.dim() == 2 else torch.unflatten(found, 1, input.shape[:-1])


class MemberConv(MemberExit):
    """A convolution as exit, members apart: one group per member.

    Example:
        >>> layer, x = nn.Conv2d(6, 2, 3), torch.randn(4, 6, 5, 5)
        >>> apart = MemberConv(layer, (6,), 3, rows=True)(x)
        >>> apart.shape, torch.allclose(apart.view(3, 4, 2, 3, 3).mean(0), layer(x), atol=1e-6)
        (torch.Size([12, 2, 3, 3]), True)
    """

    def __init__(self, layer: Any, parts: Sequence[int], members: int, *, rows: bool) -> None:
        super().__init__(layer, parts, members, rows=rows)
        grouped = object.__new__(type(layer))
        vars(grouped).update(vars(layer))
        grouped.groups = members
        self._layer = (grouped,)  # in a tuple: its parameters are this module's already

    def apart(self, input: Tensor, *further: Any) -> Tensor:
        """``[batch, in, *positions]`` to ``[m, batch, out, *positions]``."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        read = by_member(input, 1, self.parts, self.members).flatten(1, 2)
        own = None if bias is None else bias.repeat(self.members)
        found = self._convolve(read, weight, own, *further)
        return torch.unflatten(found, 1, (self.members, -1)).transpose(0, 1)

    def _convolve(self, read: Tensor, weight: Tensor, bias: Tensor | None, *further: Any) -> Tensor:
        own = by_member(weight, 1, self.parts, self.members).transpose(0, 1).flatten(0, 1)
        found: Tensor = self._layer[0]._conv_forward(read, own * self.factor, bias)
        return found


class MemberConvTranspose(MemberConv):
    """A transposed convolution as exit, members apart; its weight is ``[in, out, *kernel]``."""

    def _convolve(self, read: Tensor, weight: Tensor, bias: Tensor | None, *further: Any) -> Tensor:
        layer, dims = self._layer[0], weight.dim() - 2
        own = by_member(weight, 0, self.parts, self.members).flatten(0, 1) * self.factor
        size = further[0] if further else None
        padding = layer._output_padding(
            read, size, layer.stride, layer.padding, layer.kernel_size, dims, layer.dilation
        )
        return _TRANSPOSED[dims - 1](
            read, own, bias, layer.stride, layer.padding, padding, self.members, layer.dilation
        )
