"""The capacity budget: bits of layered threshold networks, in whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cerewrite.ir import Analysis, Design, Layer, Region
from cerewrite.planning.budgets.base import LARGEST, Cost, IntArray, RegionCost, register


def layer_bits(
    whole: Any, part: Any, channels: tuple[Any, Any], kernel: int, groups: Any, *, least: Any = min
) -> tuple[Any, Any, Any]:
    """Bits of one layer, and what is left of the inputs' behind it.

    A unit that reads ``s`` inputs, of which only ``2^b`` settings occur, stores ``b s`` bits at
    most; of a layered network b is the narrowest width so far. Each of g groups reads its share.

    Args:
        whole: bits of the whole value read.
        part: bits of one group's share of it.
        channels: channels read and written.
        kernel: weights per pair of channels.
        groups: groups.
        least: elementwise minimum: of whole numbers, or of arrays of them.

    Returns:
        The layer's bits; bits of the value written, and of one group's share of that.

    Example:
        >>> layer_bits(2, 2, (3, 5), 1, 1)  # min(2, 3) * 3 * 5
        (30, 2, 2)
    """
    read, written = channels
    share = read // groups
    seen = kernel * least(part, share)
    bits = seen * kernel * share * written
    return bits, least(written, kernel * whole), least(written // groups, seen)


def model_bits(layers: Sequence[Layer]) -> dict[str, int]:
    """Bits of every sampled layer of a traced model, from its input on; see `Capacity`.

    Args:
        layers: in execution order.
    """
    left: dict[str, tuple[int, int]] = {}
    found: dict[str, int] = {}
    for layer in layers:
        known = [left[name] for name in layer.sources if name in left]
        whole = (
            sum(w for w, _ in known)
            if len(known) == len(layer.sources) and known
            else layer.in_channels
        )
        # Behind grouped layers a group has its own part, elsewhere a share of the whole.
        part = min((p for _, p in known), default=whole) if len(known) == 1 else whole
        ends = (layer.in_channels, layer.out_channels)
        part = part if layer.groups > 1 else whole
        bits, whole, part = layer_bits(whole, part, ends, layer.kernel, layer.groups)
        found[layer.name] = bits
        if layer.target is not None:
            # What several layers write to one value adds up.
            before = left.get(layer.target, (0, 0))
            size = layer.out_channels
            left[layer.target] = (
                min(size, before[0] + whole),
                min(size // layer.groups, before[1] + part),
            )
    return found


@register
class Capacity(Cost):
    """Bits that the layers of a model's regions store as layered threshold networks.

    ``sum_k min(n_1, ..., n_k) n_k n_{k+1}``, the minimum from a region's input on; a
    convolution counts as a dense layer on one patch, members as networks that share their input.
    Layers outside of all regions are the same before and after and are not counted.

    References:
        Baldi & Vershynin, The capacity of feedforward neural networks (1901.00434).
    """

    name = "capacity"
    unit = "bits of the regions' layers"

    def baseline(self, analysis: Analysis) -> int:
        """Bits of the original model's regions."""
        regions = (item.region for item in analysis.regions)
        return sum(self.region(region).exact(region.design) for region in regions)

    def region(self, region: Region) -> RegionCost:
        """Bits of one region's layers."""
        return RegionBits(region)


@dataclass(frozen=True, slots=True)
class RegionBits:
    """One region's bits as a function of its design."""

    region: Region

    def table(self, multiplicities: IntArray, widths: IntArray) -> IntArray:
        """See `RegionCost.table`."""
        columns = [np.asarray(widths[:, index])[:, None] for index in range(widths.shape[1])]
        members = np.asarray(multiplicities)[None, :]
        size = (len(widths), len(multiplicities))
        floats = self._count([c.astype(np.float64) for c in columns], members.astype(float))
        large = np.broadcast_to(floats, size) > LARGEST
        if not large.any():
            found = self._count([c.astype(np.int64) for c in columns], members.astype(np.int64))
            return np.array(np.broadcast_to(found, size))
        table = np.full(size, LARGEST, dtype=np.int64)
        for row, column in zip(*np.nonzero(~large), strict=True):
            design = Design(int(multiplicities[column]), tuple(map(int, widths[row])))
            table[row, column] = self.exact(design)
        return table

    def exact(self, design: Design) -> int:
        """See `RegionCost.exact`."""
        return int(self._count(design.widths, design.multiplicity, min))

    def _count(
        self, widths: Sequence[Any], members: Any, least: Callable[..., Any] = np.minimum
    ) -> Any:
        left: dict[int, tuple[Any, Any]] = {}
        total: Any = 0
        for layer in self.region.layers:
            if layer.role == "entry":
                whole = part = layer.in_channels
                read, groups = layer.in_channels, 1
            else:
                pairs = [left.get(s, (members * widths[s], widths[s])) for s in layer.sources]
                read = members * layer.reads(widths)
                whole, part = (sum(pair[end] for pair in pairs) for end in (0, 1))
                whole = least(whole, read)
                groups = members * layer.groups if layer.role == "interior" else 1
                part = part if layer.role == "interior" else whole
            written = layer.out_channels if layer.role == "exit" else members * widths[layer.target]
            bits, whole, part = layer_bits(
                whole, part, (read, written), layer.kernel, groups, least=least
            )
            total = total + bits
            if layer.role != "exit":
                before = left.get(layer.target, (0, 0))
                own = widths[layer.target]
                part = whole if layer.role == "entry" else part
                left[layer.target] = (
                    least(members * own, before[0] + whole),
                    least(own, before[1] + part),
                )
        return total
