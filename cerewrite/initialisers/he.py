"""He initialisation, whatever the original's gain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cerewrite.initialisers.base import Initialiser, Original, fan_in, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register
class He(Initialiser):
    """Gaussian of variance 2 / fan_in: energy is kept through a ReLU.

    References:
        He et al., Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2.
    """

    name = "he"

    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """``W ~ N(0, 2 / fan_in)``."""
        weight.normal_(0, math.sqrt(2 / fan_in(weight)), generator=generator)
