"""Costs that a budget limits: how a region's cost follows from its design, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Design, Region
from cerewrite.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


LARGEST = 1 << 61
"""Costs above it are given as it: no int64 overflows unseen."""

WIDE = 1 << 16
"""Widths above it may overflow before a cost is compared: such costs are estimated first."""


class RegionCost(Protocol):
    """One region's cost as a function of its design; never falls with members or widths.

    The original design alone may cost less than that says.
    """

    def table(self, multiplicities: IntArray, widths: IntArray) -> IntArray:
        """The cost of every pair of a multiplicity and a row of member widths.

        Args:
            multiplicities: members, ``[m]``.
            widths: widths of one member, ``[designs, classes]``.

        Returns:
            ``[designs, m]``, in the cost's unit.
        """

    def exact(self, design: Design) -> int:
        """The cost of one design, in whole numbers of any size."""


class Cost(ABC):
    """A cost of a model that is a fixed part plus one term per region.

    Attributes:
        name: registered name, as in ``--budget name=...``.
        unit: what one of it is, for messages.
        units: further suffixes of an amount, beside k, M, G and T.
        timed: whether it needs times measured on this machine (`Region.profile`).
        keeps: whether it needs what training keeps (`Region.kept`).
        trains: whether it needs times of training steps (`Region.step`).
        missing: what is said where the analysis lacks that; "" where it cannot.
        advice: what to do then.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    units: ClassVar[Mapping[str, float]] = {}
    timed: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    missing: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def known(self, analysis: Analysis) -> bool:
        """Whether the analysis has what the cost is counted from."""
        return not self.missing or getattr(analysis, self.name) > 0

    def baseline(self, analysis: Analysis) -> int:
        """The whole original model's cost, the field of the analysis of that name.

        Raises:
            UsageError: if the analysis was made without what it is counted from.
        """
        if not self.known(analysis):
            raise UsageError(self.missing, advice=self.advice)
        return int(getattr(analysis, self.name))

    @abstractmethod
    def region(self, region: Region) -> RegionCost:
        """The cost of one region's layers and modules."""


BUDGETS: Registry[Cost] = Registry("budget", "cerewrite.planning.budgets")

register = BUDGETS.instance


def region_cost(name: str, region: Region, design: Design) -> int:
    """Exact cost of one region's layers and modules in one design.

    Args:
        name: registered cost.
        region: the region.
        design: its members.

    Returns:
        The cost in its own unit, at least 0.

    Raises:
        UsageError: if no cost has that name.

    Example:
        >>> from cerewrite.ir import Design, RegionLayer
        >>> up = RegionLayer("up", "linear", "entry", (), 0, 10, 8, 1, 1, True)
        >>> down = RegionLayer("down", "linear", "exit", (0,), -1, 8, 3, 1, 1, True)
        >>> region = Region("mlp", "block", ("up",), (8,), 1, (up, down), ())
        >>> region_cost("params", region, Design(2, (4,)))
        115
    """
    return BUDGETS[name].region(region).exact(design)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """``constant + m * (member + linear . n + sum over pairs of c n_s n_t / g)``, exactly.

    Attributes:
        constant: what no split changes (the biases of exits).
        linear: cost per unit of member width, by class: entries, exits, biases, norms.
        pairs: cost per pair of units of interior layers, by the classes read and written and the
            groups g inside a member, which divide its widths.
        member: cost per member, whatever its widths.
    """

    constant: int
    linear: tuple[int, ...]
    pairs: Mapping[tuple[int, int, int], int]
    member: int = 0

    def table(self, multiplicities: IntArray, widths: IntArray) -> IntArray:
        """See `RegionCost.table`."""
        widths = np.asarray(widths, dtype=np.int64)
        member = self._member(widths)
        table = self.constant + np.multiply.outer(member, multiplicities)
        most = float(multiplicities.max(initial=0))
        if float(member.max(initial=0)) * most > LARGEST or widths.max(initial=0) > WIDE:
            exact = np.multiply.outer(self._member(widths.astype(np.float64)), multiplicities)
            table[exact > LARGEST] = LARGEST
        return np.asarray(table)

    def _member(self, widths: NDArray[Any]) -> NDArray[Any]:
        """The cost of one member of each design, ``[designs]``, in the widths' own arithmetic."""
        kind = widths.dtype
        member = widths @ np.asarray([min(c, LARGEST) for c in self.linear], kind) + self.member
        if self.pairs:
            sources, targets, groups = np.asarray(list(self.pairs), dtype=np.int64).T
            read = widths[:, sources] // groups
            weights = np.asarray([min(c, LARGEST) for c in self.pairs.values()], kind)
            member = member + (read * widths[:, targets]) @ weights
        return np.asarray(member)

    def exact(self, design: Design) -> int:
        """See `RegionCost.exact`."""
        widths = design.widths
        member = self.member + sum(cost * n for cost, n in zip(self.linear, widths, strict=True))
        for (source, target, groups), cost in self.pairs.items():
            member += cost * (widths[source] // groups) * widths[target]
        return self.constant + design.multiplicity * member


def weight_polynomial(region: Region, *, per_weight: bool) -> Polynomial:
    """The weights and biases of a region's layers, with its modules, as a polynomial.

    Args:
        region: the region.
        per_weight: count parameters when True, floating-point operations when False (two per
            weight and output position, biases not counted).
    """
    linear = [0] * len(region.classes)
    pairs: dict[tuple[int, int, int], int] = {}
    constant = 0
    for layer in region.layers:
        weight = layer.kernel if per_weight else 2 * layer.kernel * layer.positions
        bias = int(layer.bias) + layer.settings if per_weight else 0
        if layer.role == "entry":
            linear[layer.target] += (weight * layer.in_channels + bias) * layer.written
        elif layer.role == "exit":
            for source in layer.sources:
                linear[source] += weight * layer.times * layer.out_channels
            constant += bias * layer.out_channels
        else:
            for source in layer.sources:
                key = (source, layer.target, layer.groups)
                pairs[key] = pairs.get(key, 0) + weight * layer.times * layer.written
            linear[layer.target] += bias * layer.written
    index = {name: i for i, name in enumerate(region.classes)}
    for module in region.modules:
        for name in module.widths:
            linear[index[name]] += module.params if per_weight else module.flops
    return Polynomial(constant, tuple(linear), pairs)
