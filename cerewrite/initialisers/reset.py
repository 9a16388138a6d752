"""The distribution of each original layer's own ``reset_parameters``."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

from cerewrite.errors import RewriteError
from cerewrite.initialisers.base import (
    Initialiser,
    Original,
    fan_in,
    register,
    seeded_globally,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@register
class Reset(Initialiser):
    """As the original's reset_parameters draws, rescaled from its fan-in to the member's.

    The values come from ``reset_parameters`` of a copy at the original's own sizes, so that its
    gain is kept whatever rule of fans it follows; they are taken to be independent.
    """

    name = "reset"

    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """``W = W0 sqrt(fan_in0 / fan_in)``, W0 drawn by the original's ``reset_parameters``."""
        values = self._values("weight", weight.numel(), original, generator)
        weight.copy_(values.view_as(weight) * math.sqrt(original.fan_in / fan_in(weight)))

    def draw_bias(self, bias: Tensor, original: Original, generator: torch.Generator) -> None:
        """The values that ``reset_parameters`` gives the original's bias."""
        bias.copy_(self._values("bias", bias.numel(), original, generator))

    def _values(
        self, name: str, count: int, original: Original, generator: torch.Generator
    ) -> Tensor:
        import torch

        module = _fresh_copy(original)
        drawn: list[Tensor] = []
        with seeded_globally(generator):
            while sum(map(len, drawn)) < count:
                module.reset_parameters()  # type: ignore[operator]  # every torch layer has it
                drawn.append(module.get_parameter(name).detach().flatten().clone())
        return torch.cat(drawn)[:count]


def _fresh_copy(original: Original) -> nn.Module:
    """A copy with parameters of its own on the CPU, at least float32."""
    import torch
    from torch import nn

    if not callable(getattr(original.module, "reset_parameters", None)):
        raise RewriteError(
            f"'{original.name}' has no reset_parameters to draw its members' weights with",
            advice="draw them with its measured gain (init='gain')",
        )
    module = copy.copy(original.module)
    vars(module)["_parameters"] = {
        name: None
        if value is None
        else nn.Parameter(
            torch.empty(
                value.shape,
                dtype=torch.float64 if value.dtype == torch.float64 else torch.float32,
            )
        )
        for name, value in original.module._parameters.items()
    }
    return module
