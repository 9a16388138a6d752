"""The weight that a convolution's own forward reads: seen, or another one put in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)


class _Reading(TorchFunctionMode):
    """Notes the weights that convolutions read.

    Args:
        instead: a weight and a bias that they read instead; None for their own.

    Attributes:
        seen: the weights.
    """

    def __init__(self, instead: tuple[Tensor, Tensor | None] | None = None) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self._instead = instead

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        names = ("input", "weight", "bias")
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        self.seen.append(given["weight"])
        if self._instead is not None:
            given["weight"], given["bias"] = self._instead
        return func(*(given.pop(name, None) for name in names), *args[3:], **given)


def weight_read(conv: _ConvNd) -> Tensor | None:
    """The weight that a convolution's forward reads, ``[out, in / groups, *kernel]``.

    Args:
        conv: a convolution, its parameters on a device that computes.

    Returns:
        The weight, or None where the forward raises on a map as large as the kernel, or runs
        other than one convolution.

    Example:
        >>> weight_read(conv := nn.Conv1d(2, 3, 5)) is conv.weight
        True
    """
    extents = zip(conv.kernel_size, conv.dilation, strict=True)
    x = conv.weight.new_zeros(1, conv.in_channels, *(d * (k - 1) + 1 for k, d in extents))
    try:
        with torch.no_grad(), _Reading() as reading:
            conv.forward(x)
    except Exception:  # a user's forward may raise anything
        return None
    return reading.seen[0] if len(reading.seen) == 1 else None


class WeightedConv(nn.Module):
    """A convolution whose own forward reads a given weight instead of what it computes.

    Args:
        conv: the convolution; none of its parameters is used.
        weight: ``[out, in / groups, *kernel]``.
        bias: ``[out]``, or None.

    Example:
        >>> layer = WeightedConv(nn.Conv1d(1, 1, 1), torch.full((1, 1, 1), 2.0), None)
        >>> layer(torch.ones(1, 1, 3)).tolist()
        [[[2.0, 2.0, 2.0]]]
    """

    def __init__(self, conv: _ConvNd, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.conv = conv
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, input: Tensor) -> Tensor:
        """``[batch, in, *map]`` to ``[batch, out, *map]``."""
        with _Reading((self.weight, self.bias)):
            output: Tensor = self.conv(input)
        return output
