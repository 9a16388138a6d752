"""Norms over each member's own features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.nn.channel_reorder import ChannelReorder


class MemberNorm(nn.Module):
    """What the member norms share: sizes, a weight per feature, perhaps a bias.

    Attributes:
        before, after: what puts each member's features side by side, and back, where they read a
            concatenation; else None.
    """

    def __init__(
        self,
        features: int,
        members: int,
        eps: float | None,
        elementwise_affine: bool,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if members < 1 or features % members:
            raise UsageError(
                f"{type(self).__name__}: {features} features do not divide into {members} members",
                advice="choose features that are a multiple of the number of members",
            )
        self.features = features
        self.members = members
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.before: ChannelReorder | None = None
        self.after: ChannelReorder | None = None
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            empty = torch.empty(features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty) if wanted else None)
        self.reset_parameters()

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def gather(self, parts: Sequence[int]) -> Self:
        """Let it read a concatenation, the members' features apart; weights lie as the input does.

        Args:
            parts: features of each part, all members together.
        """
        device = None if self.weight is None else self.weight.device
        self.before = ChannelReorder(parts, self.members, axis=-1).to(device)
        self.after = ChannelReorder(parts, self.members, axis=-1).to(device)
        self.after.order = self.before.order.argsort()
        return self

    def _normalise(self, members: Tensor) -> Tensor:
        """Normalise ``[..., members, features / members]`` over the last axis."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each member's features of ``[..., features]`` by themselves."""
        shape = (self.members, self.features // self.members)
        members = input if self.before is None else self.before(input)
        output = self._normalise(torch.unflatten(members, -1, shape)).flatten(-2)
        output = output if self.after is None else self.after(output)
        if self.weight is not None:
            output = output * self.weight
        if self.bias is not None:
            output = output + self.bias
        return output

    def extra_repr(self) -> str:
        """Sizes and options, for ``repr``."""
        return (
            f"{self.features}, members={self.members}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class MemberLayerNorm(MemberNorm):
    """A `torch.nn.LayerNorm` for each member's own features on the last axis.

    Args:
        features: features, all members together; a multiple of ``members``.
        members: number of members, at least 1.
        eps: added to the variance.
        elementwise_affine: whether there is a weight per feature.
        bias: whether there is a bias per feature too.
        device: where the parameters live.
        dtype: their type.

    Shape:
        weight and bias ``[features]``; input and output ``[..., features]``.

    Raises:
        UsageError: if the features do not divide into members.

    Example:
        >>> x = torch.tensor([[0.0, 2.0, 10.0, 12.0]])
        >>> MemberLayerNorm(4, members=2, eps=0.0)(x).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        features: int,
        members: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, members, eps, elementwise_affine, bias, device, dtype)

    def _normalise(self, members: Tensor) -> Tensor:
        assert self.eps is not None
        return F.layer_norm(members, members.shape[-1:], eps=self.eps)


class ChannelLayerNorm(MemberLayerNorm):
    """A `MemberLayerNorm` whose channels are on axis 1, position by position, as on images.

    Takes the arguments of `MemberLayerNorm`; input and output ``[batch, features, *positions]``.

    Example:
        >>> x = torch.tensor([[0.0, 2.0, 10.0, 12.0]]).reshape(1, 4, 1, 1)
        >>> ChannelLayerNorm(4, members=2, eps=0.0)(x).flatten().tolist()
        [-1.0, 1.0, -1.0, 1.0]
        >>> apart = torch.tensor([[0.0, 10.0, 2.0, 12.0]]).reshape(1, 4, 1, 1)  # two parts
        >>> ChannelLayerNorm(4, members=2, eps=0.0).gather((2, 2))(apart).flatten().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each member's channels of ``[batch, features, *positions]``."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class MemberRMSNorm(MemberNorm):
    """A `torch.nn.RMSNorm` for each member's own features on the last axis.

    Args:
        features: features, all members together; a multiple of ``members``.
        members: number of members, at least 1.
        eps: added to the mean square; None for the type's own epsilon.
        elementwise_affine: whether there is a weight per feature.
        device: where the parameters live.
        dtype: their type.

    Shape:
        weight ``[features]``; input and output ``[..., features]``.

    Raises:
        UsageError: if the features do not divide into members.

    Example:
        >>> x = torch.tensor([[3.0, 3.0, -5.0, 5.0]])
        >>> MemberRMSNorm(4, members=2, eps=0.0)(x).tolist()
        [[1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        features: int,
        members: int,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, members, eps, elementwise_affine, False, device, dtype)

    def _normalise(self, members: Tensor) -> Tensor:
        return F.rms_norm(members, members.shape[-1:], eps=self.eps)
