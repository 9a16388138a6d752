"""The step budget: nanoseconds per training step, from times measured layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cerewrite.errors import UsageError
from cerewrite.ir import Region
from cerewrite.planning.budgets.base import Cost, RegionCost, register
from cerewrite.planning.budgets.latency import RegionLatency


@register
class Step(Cost):
    """Nanoseconds per training step, forward and backward, in PyTorch eager.

    Composed as `cerewrite.planning.budgets.latency` composes a call, of times that were taken
    with gradients at the training batch: entries and exits in proportion to ``m n``, interior
    layers ``m tau(n)`` with n the next measured width above ``sqrt(n n')``, because kernels work
    in blocks, norms and activations per channel; what is left of the model's
    own measured step is the fixed part. The optimiser's own time is not in it.
    """

    name = "step"
    unit = "ns per training step"
    units: ClassVar[Mapping[str, float]] = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
    trains = True
    missing = "a step budget needs times of training steps"
    advice = (
        "analyse with step_batch=32 (or another batch), or give a stored profile; `cerewrite plan` "
        "and `convert` time it by themselves"
    )

    def region(self, region: Region) -> RegionCost:
        """The forecast step time of one region's layers and modules.

        Raises:
            UsageError: if the region has no times.
        """
        if region.step is None:
            raise UsageError(f"region '{region.name}' has no times of a step", advice=self.advice)
        return RegionLatency(region.step, stairs=True)
