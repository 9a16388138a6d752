"""Gaussian weights with each original layer's own gain: the default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cerewrite.initialisers.base import Initialiser, Original, fan_in, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register
class Gain(Initialiser):
    """Gaussian of variance gain / fan_in, the gain measured on the original's weights."""

    name = "gain"

    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """``W ~ N(0, g / fan_in)`` g being ``fan_in * E[W^2]`` (docs/theory.md, eq. 3)."""
        weight.normal_(0, math.sqrt(original.gain / fan_in(weight)), generator=generator)
