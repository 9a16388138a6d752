"""The parameter budget: every weight, bias and norm setting of the built model."""

from __future__ import annotations

from cerewrite.ir import Region
from cerewrite.planning.budgets.base import Cost, RegionCost, register, weight_polynomial


@register
class Params(Cost):
    """Parameters, counted as the built model's ``sum(p.numel())``.

    An entry layer has ``k * in * m n`` weights, an interior one ``m * k * n n'``, an exit
    ``k * m n * out``, with k kernel elements; biases and per-channel settings are added
    (docs/theory.md, eq. 31).
    """

    name = "params"
    unit = "parameters"

    def region(self, region: Region) -> RegionCost:
        """Parameters of one region's layers and modules."""
        return weight_polynomial(region, per_weight=True)
