"""Orthogonal blocks with each original layer's own gain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cerewrite.initialisers.base import Initialiser, Original, fan_in, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register
class Orthogonal(Initialiser):
    """Each member's matrix semi-orthogonal, scaled to the original's gain.

    References:
        Saxe et al., Exact solutions to the nonlinear dynamics of learning (arXiv 1312.6120).
    """

    name = "orthogonal"

    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """``W = s Q``: Q is ``[out, fan_in]`` with entries of mean square 1 / max(out, fan_in)."""
        from torch import nn

        units, inputs = weight.shape[0], fan_in(weight)
        scale = math.sqrt(original.gain * max(units, inputs) / inputs)
        nn.init.orthogonal_(weight, scale, generator=generator)
