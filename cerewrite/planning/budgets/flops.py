"""The FLOP budget: two per multiply-add of linear and convolution layers, per example."""

from __future__ import annotations

from cerewrite.ir import Region
from cerewrite.planning.budgets.base import Cost, RegionCost, register, weight_polynomial


@register
class Flops(Cost):
    """Floating-point operations per example: twice the weights, times output positions.

    Biases, norms and activations are not counted; depthwise convolutions are: docs/theory.md,
    eq. 32.
    """

    name = "flops"
    unit = "FLOPs per example"

    def region(self, region: Region) -> RegionCost:
        """FLOPs of one region's layers and modules per example."""
        return weight_polynomial(region, per_weight=False)
