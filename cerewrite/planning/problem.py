"""One region as the search sees it: allowed widths, costs and measure of any design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from cerewrite.errors import UsageError
from cerewrite.ir import LARGEST_SIZE, Design, Region, Rejection
from cerewrite.planning.budgets import BUDGETS, RegionCost
from cerewrite.planning.measures import Measure
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.registry import require_whole

WIDEST = 8
"""A member's class is searched up to this many times its original channels."""

GROWTH = 64
"""Designs that cost more than this many times the region's own cost are not searched."""

FREE_CLASSES = 32
"""Regions with more classes keep classes of equal original width equal."""

BLOCK = 1 << 14
"""Designs scored at once: what they need on the way stays in the processor's cache."""

MAX_MULTIPLICITY = 1 << 20
"""Members are never more than this, asked for or not."""


TRUSTED = 4
"""Members are not made narrower unless asked for: the closed form is far too low there
(docs/GRID.md), and grouped kernels are slow."""


WIDTHS = ("proportional", "free")
"""One scale of the original's widths per member, as in the paper, or every class on its own."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What every design must satisfy, the original ones excepted.

    Attributes:
        min_width: least width of a member; None for 4, or the original's where that is less.
        max_multiplicity: most members, or None.
        channel_multiple: every width is a multiple of it.
        widths: ``proportional`` or ``free``.
    """

    min_width: int | None = None
    max_multiplicity: int | None = None
    channel_multiple: int = 1
    widths: str = "proportional"

    def __post_init__(self) -> None:
        """Refuse numbers below 1 or above 2^31 - 1.

        Raises:
            UsageError: if one of the three is no whole number in that range, or the widths are
                neither.
        """
        if self.widths not in WIDTHS:
            raise UsageError(
                f"unknown widths '{self.widths}'", advice=f"choose from: {', '.join(WIDTHS)}"
            )
        given = {
            "min_width": self.min_width,
            "max_multiplicity": self.max_multiplicity,
            "channel_multiple": self.channel_multiple,
        }
        for name, value in given.items():
            if value is not None:
                require_whole(name, value, 1, LARGEST_SIZE)

    def least(self, own: int, grain: int = 1) -> int:
        """The least width of a member of a class whose original members are ``own`` wide.

        Args:
            own: their width.
            grain: channels of layers where the class has one (`Region.grains`).
        """
        wanted = TRUSTED if self.min_width is None else self.min_width
        wanted = -(-wanted // grain)
        return min(wanted, own) if self.min_width is None else wanted

    @property
    def most(self) -> int:
        """The most members that are searched."""
        return min(self.max_multiplicity or MAX_MULTIPLICITY, MAX_MULTIPLICITY)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One region's search space.

    Classes fall into groups of equal width: each class is its own group, except in regions with
    more than 32 classes, where classes of the same original width and divisor share one.

    Attributes:
        region: the region.
        group: group of each class, ``[classes]``.
        values: allowed member widths of each group, ascending; every one is a multiple of the
            channel multiple and of its modules' divisors.
        priced: names of the region's budgeted costs, the objective's first.
        costs: these costs.
        measure: what is minimised.
        most: most members; 1 without interior layers, where m members of width n and one of
            width m * n are the same network (docs/theory.md, section 2).
        held: the one design that is allowed, where the user holds it; None for a free search.
        proportional: whether all widths of a member are one scale of the original's.
        ceiling: the largest score of a design that is not the original.
    """

    region: Region
    group: IntArray
    values: tuple[IntArray, ...]
    priced: tuple[str, ...]
    costs: tuple[RegionCost, ...]
    measure: Measure
    most: int
    held: Design | None = None
    proportional: bool = True
    ceiling: float = float("inf")

    def expand(self, rows: IntArray) -> IntArray:
        """Widths per class, ``[designs, classes]``, from widths per group."""
        return np.asarray(rows, dtype=np.int64)[:, self.group]

    def widths_at(self, index: IntArray) -> IntArray:
        """Widths per group from indices into `values`, both ``[designs, groups]``."""
        return np.stack([values[index[:, g]] for g, values in enumerate(self.values)], axis=-1)

    def scaled(self, parts: IntArray, whole: int) -> tuple[IntArray, NDArray[np.bool_]]:
        """Member widths at ``parts / whole`` of the original's, rounded to allowed ones.

        Args:
            parts: numerators of the scales, ``[scales]``.
            whole: their denominator.

        Returns:
            Widths, ``[scales, classes]``, and whether none of them was cut off at a bound.
        """
        columns, inside = [], np.ones(len(parts), dtype=np.bool_)
        for index, width in enumerate(self.region.widths):
            values = self.values[self.group[index]]
            step = int(values[1] - values[0]) if len(values) > 1 else 1
            wanted = np.floor(parts * width / (whole * step) + 0.5).astype(np.int64) * step
            columns.append(np.clip(wanted, values[0], values[-1]))
            inside &= columns[-1] == wanted
        return np.stack(columns, axis=-1), inside

    def proportions(self) -> IntArray:
        """Member widths in the original's proportions, ``[scales, classes]``, each once.

        The scales are those at which the class of most channels takes its allowed widths; where
        one of them would leave another class outside of its bounds, it is left out.
        """
        widest = int(np.argmax(self.region.widths))
        values = self.values[self.group[widest]]
        rows, inside = self.scaled(values, self.region.widths[widest])
        return np.unique(rows[inside] if inside.any() else rows, axis=0)

    def table(self, multiplicities: IntArray, widths: IntArray) -> FloatArray:
        """Costs, ``[designs, multiplicities, costs]``; exact below 2^53."""
        tables = [cost.table(multiplicities, widths) for cost in self.costs]
        return np.stack(tables, axis=-1).astype(np.float64)

    def member(self, widths: IntArray) -> FloatArray:
        """Measure of one member, ``[designs, parts]``."""
        return self.measure.member(self.region.sites, widths)

    def scores(self, member: FloatArray, multiplicities: IntArray) -> FloatArray:
        """Scores of every member at every multiplicity, ``[designs, multiplicities]``.

        Args:
            member: from `member`, ``[designs, parts]``.
            multiplicities: ``[multiplicities]``.
        """
        counts = multiplicities.astype(np.float64)
        scores = np.empty((len(member), len(counts)))
        step = max(BLOCK // max(len(counts), 1), 1)
        for start in range(0, len(member), step):
            block = slice(start, start + step)
            scores[block] = self.measure.score(member[block, None, :], counts)
        return scores

    def original(self) -> tuple[FloatArray, float]:
        """Costs ``[costs]`` and score of the original design."""
        return self.figures(self.region.design)

    def figures(self, design: Design) -> tuple[FloatArray, float]:
        """Costs ``[costs]`` and score of one design."""
        widths = np.asarray([design.widths], dtype=np.int64)
        members = np.asarray([design.multiplicity], dtype=np.int64)
        score = self.measure.score(self.member(widths), members.astype(np.float64))
        return self.table(members, widths)[0, 0], float(score[0])


def build_problem(
    region: Region,
    costs: Sequence[str],
    measure: Measure,
    constraints: Constraints,
    *,
    awake: bool = False,
) -> Problem | Rejection:
    """The search space of a region, or why it has none.

    Args:
        region: the region.
        costs: names of the budgets.
        measure: what is minimised.
        constraints: on widths and members.
        awake: whether nothing starts at zero, as at gain ``nonzero``: a class without correction
            is one that the estimate does not look at then (what attention weighs by).
    """
    silent = _silent(region)
    written = {layer.target for layer in region.layers}
    for index in silent:
        if index in written and not (awake and len(silent) < len(region.classes)):
            return _unmeasured(region, index)
    grains = region.grains
    multiple = constraints.channel_multiple
    steps = [
        lcm(multiple // gcd(multiple, grain), step)
        for grain, step in zip(grains, region.steps, strict=True)
    ]
    least = [
        max(constraints.least(own, grain), width)
        for own, grain, width in zip(region.widths, grains, region.least, strict=True)
    ]
    keys: list[tuple[int, ...]] = [
        (size, steps[index], least[index]) if len(region.classes) > FREE_CLASSES else (index,)
        for index, size in enumerate(region.sizes)
    ]
    interior = any(layer.role == "interior" for layer in region.layers)
    most, widest = (constraints.most, WIDEST) if interior else (1, GROWTH)
    groups = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    group = np.asarray([groups[key] for key in keys], dtype=np.int64)
    values = []
    for number in range(len(groups)):
        index = int(np.flatnonzero(group == number)[0])
        step, size = steps[index], region.sizes[index]
        first = -(-least[index] // step) * step
        values.append(np.arange(first, widest * size + 1, step, dtype=np.int64))
        if not len(values[-1]):
            return Rejection(
                region.name,
                "no-width",
                f"class '{region.classes[index]}' of {size} channels has no width that is at "
                f"least {least[index]}, a multiple of {step} and at most "
                f"{widest * size}",
                "lower --min-width or --channel-multiple",
            )
    parts = tuple(BUDGETS[name].region(region) for name in costs)
    proportional = constraints.widths == "proportional" or bool(silent)
    return Problem(
        region,
        group,
        tuple(values),
        tuple(costs),
        parts,
        measure,
        most,
        proportional=proportional,
    )


def _silent(region: Region) -> list[int]:
    """Classes that add nothing to nu: nothing holds their width up.

    Those that tables alone write keep the original's proportions, with the rest of the region;
    so do those that layers write where nothing starts at zero, and are refused elsewhere.
    """
    total = np.zeros(len(region.classes))
    for site in region.sites:
        total[site.width] += site.coefficient
    return np.flatnonzero(total <= 1e-12 * max(total.max(initial=0.0), 0.0)).tolist()


def _unmeasured(region: Region, index: int) -> Rejection:
    return Rejection(
        region.name,
        "no-correction",
        f"the estimate gives class '{region.classes[index]}' no finite-width correction, so "
        "nothing holds its width up (a branch that starts at zero does this)",
        "--gain nonzero takes it as drawn; or use an estimator that measures, or leave the region "
        "as it is",
    )
