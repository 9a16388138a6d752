"""The memory budget: bytes of training, counted from the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cerewrite.errors import UsageError
from cerewrite.ir import Design, Region
from cerewrite.planning.budgets.base import Cost, IntArray, RegionCost, register, weight_polynomial

COPIES = 3
"""Of every parameter: itself, its gradient, and the momentum of SGD."""


@register
class Memory(Cost):
    """Bytes that one training step holds when its backward pass begins, at a stated batch.

    ``bytes = item * 3 * params + batch * activations``. The three copies are the parameters,
    their gradients and one optimiser state (SGD with momentum). Activations are the bytes per
    example of the distinct tensors that autograd keeps: inputs of linear layers, convolutions
    and norms, inputs or outputs of activations, what pools keep (see `cerewrite.analysis.keep`).
    A region's part is linear in its channels, ``m n``, beside its parameters, and in ``m`` where
    norms over the channels keep statistics per member.

    Left out: buffers; statistics of batch, instance and group norms; gradients of
    activations and workspace, which come and go; the allocator's rounding.
    """

    name = "memory"
    unit = "bytes of training"
    units: ClassVar[Mapping[str, float]] = {
        "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12
    }  # fmt: skip
    keeps = True
    missing = "a memory budget needs a training batch"
    advice = "analyse with memory_batch=32 (or another batch); `cerewrite plan` and `convert` do it"

    def region(self, region: Region) -> RegionCost:
        """Bytes of one region's parameters and of the values on its classes.

        Raises:
            UsageError: if nothing is known of what the region keeps.
        """
        if region.kept is None:
            raise UsageError(f"region '{region.name}' has no training batch", advice=self.advice)
        weights = weight_polynomial(region, per_weight=True)
        kept = region.kept
        each = COPIES * kept.item
        counted = replace(
            weights,
            constant=each * weights.constant,
            linear=tuple(
                each * weight + kept.batch * held
                for weight, held in zip(weights.linear, kept.per_channel, strict=True)
            ),
            pairs={key: each * weight for key, weight in weights.pairs.items()},
            member=kept.batch * kept.per_member,
        )
        if not kept.spared:
            return counted
        return Spared(counted, region.design, kept.batch * kept.spared)


@dataclass(frozen=True, slots=True)
class Spared:
    """A cost of which the original design has less than the formula for all designs.

    Attributes:
        counted: the formula.
        original: the original design.
        less: what the original has less.
    """

    counted: RegionCost
    original: Design
    less: int

    def table(self, multiplicities: IntArray, widths: IntArray) -> IntArray:
        """See `RegionCost.table`."""
        table = self.counted.table(multiplicities, widths)
        own = (np.asarray(widths) == np.asarray(self.original.widths)).all(axis=1)
        here = np.multiply.outer(own, multiplicities == self.original.multiplicity)
        return np.asarray(table - self.less * here)

    def exact(self, design: Design) -> int:
        """See `RegionCost.exact`."""
        return self.counted.exact(design) - self.less * (design == self.original)
