"""Drawing one layer's weights anew, piece by piece: a piece is one member's own layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.initialisers import Initialiser, Original
from cerewrite.ops.modules import SampledLayer


def measure(rule: SampledLayer, name: str, module: nn.Module) -> Original:
    """What drawing a layer's weights anew needs of it; its gain is ``fan_in E[W^2]``.

    Raises:
        RewriteError: if its weights are not finite.
    """
    weight, inputs = module.get_parameter("weight").detach(), rule.fan_in(module)
    norm = float(torch.linalg.vector_norm(weight, dtype=torch.float64))
    gain = inputs * norm * norm / weight.numel()
    if not math.isfinite(gain):
        raise RewriteError(
            f"the weights of '{name}' are not finite: they have no gain to keep",
            advice="initialise the model before rewriting it",
        )
    return Original(name, module, gain, inputs)


def draw(
    module: nn.Module,
    pieces: Sequence[Tensor],
    factor: float,
    original: Original,
    initialiser: Initialiser,
    generator: torch.Generator,
) -> None:
    """Fill weight, piece by piece and times a factor, and bias of a layer in place.

    Draws are made on the CPU, so that every device gets the same ones.
    """
    for piece in pieces:
        values = _buffer(piece)
        if original.gain > 0:
            initialiser.draw(values, original, generator)
        piece.copy_(values * factor)
    bias = getattr(module, "bias", None)
    if bias is not None and getattr(original.module, "bias", None) is not None:
        values = _buffer(bias)
        initialiser.draw_bias(values, original, generator)
        bias.copy_(values)


def _buffer(like: Tensor) -> Tensor:
    """Zeros of that shape, float32 or float64, on the CPU."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.zeros(like.shape, dtype=dtype)
