"""The latency budget: nanoseconds per forward call, from times measured layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cerewrite.errors import UsageError
from cerewrite.ir import BlockTimes, Design, Profile, Region
from cerewrite.planning.budgets.base import (
    LARGEST,
    Cost,
    FloatArray,
    IntArray,
    RegionCost,
    register,
)


@register
class Latency(Cost):
    """Nanoseconds per forward call in PyTorch eager, at the profiled batch and threads.

    An entry or exit takes time in proportion to ``m n``; an interior layer takes
    ``m * tau(sqrt(n n'))`` with tau the time of one member, measured at several widths: that is
    FLOPs over the efficiency of narrow members. Norms and activations count per channel. What
    is left of the model's own measured time is the fixed part (DESIGN 5).
    """

    name = "latency"
    unit = "ns per call"
    units: ClassVar[Mapping[str, float]] = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
    timed = True
    missing = "a latency budget needs times that were measured on this machine"
    advice = (
        "analyse with latency_batch=1 (or another batch); `cerewrite plan` and `convert` do it by "
        "themselves"
    )

    def region(self, region: Region) -> RegionCost:
        """The forecast latency of one region's layers and modules.

        Raises:
            UsageError: if the region has no profile.
        """
        if region.profile is None:
            raise UsageError(
                f"region '{region.name}' has no measured times",
                advice="analyse with latency_batch=1 (or another batch)",
            )
        return RegionLatency(region.profile)


@dataclass(frozen=True, slots=True)
class RegionLatency:
    """A profile as a cost: never falls with members or widths.

    Attributes:
        profile: the measured times.
        stairs: whether a width between two measured ones takes the time of the wider.
    """

    profile: Profile
    stairs: bool = False

    def table(self, multiplicities: IntArray, widths: IntArray) -> IntArray:
        """See `cerewrite.planning.budgets.base.RegionCost.table`."""
        n = np.asarray(widths, dtype=np.float64)
        member = n @ np.asarray(self.profile.linear)
        for block in self.profile.blocks:
            mean = np.sqrt(n[:, block.source] * n[:, block.target])
            if self.stairs:
                mean = next_width(block, mean)
            member = member + block_time(block, mean)
        table = np.multiply.outer(member, multiplicities)
        return np.asarray(np.ceil(np.minimum(table, float(LARGEST))), dtype=np.int64)

    def exact(self, design: Design) -> int:
        """See `cerewrite.planning.budgets.base.RegionCost.exact`."""
        return int(self.table(np.asarray([design.multiplicity]), np.asarray([design.widths]))[0, 0])


def next_width(block: BlockTimes, widths: FloatArray) -> FloatArray:
    """The measured widths next above, or the widths themselves beyond the last one.

    Example:
        >>> block = BlockTimes(0, 1, (8, 32), (10.0, 40.0))
        >>> next_width(block, np.array([3.0, 8.0, 9.0, 40.0])).tolist()
        [8.0, 8.0, 32.0, 40.0]
    """
    known = np.asarray(block.widths, dtype=np.float64)
    index = np.searchsorted(known, widths - 1e-9 * widths)
    return np.where(index < len(known), known[np.minimum(index, len(known) - 1)], widths)


def block_time(block: BlockTimes, widths: FloatArray) -> FloatArray:
    """Nanoseconds per member at any width: log-log between measured widths, quadratic above.

    Args:
        block: the measured times.
        widths: geometric mean of the widths read and written, ``[designs]``.

    Example:
        >>> block = BlockTimes(0, 1, (8, 32), (10.0, 40.0))
        >>> block_time(block, np.array([8.0, 16.0, 64.0])).round(6).tolist()
        [10.0, 20.0, 160.0]
    """
    known = np.maximum.accumulate(np.asarray(block.nanoseconds))
    inside = np.exp(np.interp(np.log(widths), np.log(block.widths), np.log(known)))
    above = known[-1] * (widths / block.widths[-1]) ** 2
    return np.asarray(np.where(widths > block.widths[-1], above, inside))
