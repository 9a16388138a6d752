"""Layers with an explicit multiplier on what they read: exits that carry ``1 / sqrt(m)``."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

L = TypeVar("L", bound=nn.Module)


class Scaled(nn.Module):
    """What the scaled layers share: ``y = W (s x) + b``, with s a constant.

    Attributes:
        scale: the multiplier s, above 0.
    """

    scale: float = 1.0

    def extra_repr(self) -> str:
        """Sizes and the multiplier, for ``repr``."""
        return f"{super().extra_repr()}, scale={self.scale:.6g}"


class ScaledLinear(Scaled, nn.Linear):
    """A `torch.nn.Linear` that multiplies its input by ``scale``.

    Example:
        >>> import torch
        >>> layer = with_scale(nn.Linear(4, 2), 0.5)
        >>> plain = nn.functional.linear(torch.full((1, 4), 0.5), layer.weight, layer.bias)
        >>> torch.equal(layer(torch.ones(1, 4)), plain)
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return super().forward(input * self.scale)


class ScaledConv1d(Scaled, nn.Conv1d):
    """A `torch.nn.Conv1d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[batch, in, length]`` to ``[batch, out, length]``."""
        return super().forward(input * self.scale)


class ScaledConv2d(Scaled, nn.Conv2d):
    """A `torch.nn.Conv2d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[batch, in, height, width]`` to ``[batch, out, height, width]``."""
        return super().forward(input * self.scale)


class ScaledConv3d(Scaled, nn.Conv3d):
    """A `torch.nn.Conv3d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[batch, in, depth, height, width]`` to ``[batch, out, ...]``."""
        return super().forward(input * self.scale)


class ScaledConvTranspose1d(Scaled, nn.ConvTranspose1d):
    """A `torch.nn.ConvTranspose1d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``[batch, in, length]`` to ``[batch, out, ...]``."""
        return super().forward(input * self.scale, output_size)


class ScaledConvTranspose2d(Scaled, nn.ConvTranspose2d):
    """A `torch.nn.ConvTranspose2d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``[batch, in, height, width]`` to ``[batch, out, ...]``."""
        return super().forward(input * self.scale, output_size)


class ScaledConvTranspose3d(Scaled, nn.ConvTranspose3d):
    """A `torch.nn.ConvTranspose3d` that multiplies its input by ``scale``."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``[batch, in, depth, height, width]`` to ``[batch, out, ...]``."""
        return super().forward(input * self.scale, output_size)


SCALED: dict[type[nn.Module], type[Scaled]] = {
    nn.Linear: ScaledLinear,
    nn.Conv1d: ScaledConv1d,
    nn.Conv2d: ScaledConv2d,
    nn.Conv3d: ScaledConv3d,
    nn.ConvTranspose1d: ScaledConvTranspose1d,
    nn.ConvTranspose2d: ScaledConvTranspose2d,
    nn.ConvTranspose3d: ScaledConvTranspose3d,
}
"""The scaled twin of every layer type that has one."""


def with_scale(module: L, scale: float) -> L:
    """The scaled twin of a plain layer: the same parameters and settings, and the multiplier.

    Args:
        module: a layer whose type is a key of `SCALED`.
        scale: the multiplier, above 0.
    """
    kind = SCALED[type(module)]
    twin = kind.__new__(kind)
    vars(twin).update(vars(module))
    twin.scale = scale
    return twin  # type: ignore[return-value]  # the twin is a subclass of the module's type


def scale_of(module: nn.Module) -> float:
    """The multiplier of a scaled layer; 1 for every other module."""
    return module.scale if isinstance(module, Scaled) else 1.0


def times_scale(weight: Tensor, module: nn.Module) -> Tensor:
    """A part of a layer's weight with the multiplier in it: in float64, or as it is without one."""
    scale = scale_of(module)
    return weight if scale == 1 else weight.double() * scale
