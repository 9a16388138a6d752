"""The landscape of one region: measure and cost over members and widths."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerewrite.ir import Design, Designed, Region
from cerewrite.planning.budgets import BUDGETS, RegionCost
from cerewrite.planning.measures import DEFAULT, MEASURES, figure_of
from cerewrite.planning.measures.base import IntArray

COLUMNS = 20
"""Multiplicities on a map."""

MOST = 1 << 20
"""Members are never more."""


@dataclass(frozen=True, slots=True)
class Spot(Designed):
    """One design of a region.

    Attributes:
        design: its members.
        value: the region's measure.
        cost: the region's cost.
    """

    design: Design
    value: float
    cost: int


@dataclass(frozen=True, slots=True)
class Landscape:
    """Designs of one region whose widths keep the original proportions.

    Attributes:
        region: name of the region.
        cost: registered cost.
        multiplicities: members, one per column.
        widths: member widths per class, one tuple per row.
        measure: registered measure.
        values: the region's measure, ``[rows][columns]``.
        costs: region cost, ``[rows][columns]``.
        best: row and column of the least measure within the limit, or None if nothing fits.
        limit: the region's cost limit.
        curve: along the budget: per width, ascending, as many members as the limit allows;
            widths of which not one member fits are left out.
        optimum: the best on the curve; the first of equal ones.
        original: the region as it is.
    """

    region: str
    cost: str
    multiplicities: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    measure: str
    values: tuple[tuple[float, ...], ...]
    costs: tuple[tuple[int, ...], ...]
    best: tuple[int, int] | None
    limit: float
    curve: tuple[Spot, ...]
    optimum: Spot | None
    original: Spot


def landscape(
    region: Region,
    *,
    cost: str = "params",
    measure: str = DEFAULT,
    limit: float | None = None,
    multiplicities: Sequence[int] | None = None,
    rows: int = 24,
) -> Landscape:
    """Map measure and cost of a region over members and proportional widths.

    Args:
        region: the region, with its sites.
        cost: registered cost.
        measure: registered measure.
        limit: the most it may cost; by default what it costs now.
        multiplicities: the columns; by default geometric steps up to the curve's most members.
        rows: most rows; widths from the least to the original, in geometric steps of the widest
            class, rounded to what the region's modules can serve.

    Raises:
        UsageError: if no cost or no measure has that name.

    Example:
        >>> from cerewrite.ir import RegionLayer, Site
        >>> up = RegionLayer("up", "linear", "entry", (), 0, 10, 8, 1, 1, False)
        >>> down = RegionLayer("down", "linear", "exit", (0,), -1, 8, 3, 1, 1, False)
        >>> site = Site("up", 0, 0.5, 0.5, 5.0, 5.0, 1.0)
        >>> region = Region("mlp", "block", ("up",), (8,), 1, (up, down), (), (site,))
        >>> landscape(region, multiplicities=(1, 2), rows=3).widths
        ((1,), (3,), (8,))
        >>> [(one.multiplicity, one.widths[0]) for one in landscape(region, rows=3).curve]
        [(8, 1), (2, 3), (1, 8)]
    """
    widths = _proportional(region, rows)
    pricing = BUDGETS[cost].region(region)
    if limit is None:
        original = np.asarray([region.multiplicity], dtype=np.int64)
        limit = float(pricing.table(original, widths[-1:])[0, 0])
    most = [_most(pricing, line, limit) for line in widths]
    if multiplicities is None:
        multiplicities = np.unique(np.round(np.geomspace(1, max(2, *most), COLUMNS))).tolist()
    members = np.asarray(multiplicities, dtype=np.int64)
    costs = pricing.table(members, widths)
    looked_at = MEASURES[measure]
    alone = looked_at.member(region.sites, widths)[:, None, :]
    scores = looked_at.score(alone, members.astype(np.float64))
    masked = np.where(costs <= limit, scores, np.inf)
    row, column = np.unravel_index(int(np.argmin(masked)), masked.shape)

    def spot(multiplicity: int, line: IntArray) -> Spot:
        price = int(pricing.table(np.asarray([multiplicity]), line[None])[0, 0])
        alone = looked_at.member(region.sites, line[None])
        score = looked_at.score(alone, np.asarray([float(multiplicity)]))
        one = tuple(int(width) for width in line)
        return Spot(Design(multiplicity, one), figure_of(looked_at, region, float(score[0])), price)

    curve = tuple(spot(count, line) for count, line in zip(most, widths, strict=True) if count)
    return Landscape(
        region=region.name,
        cost=cost,
        multiplicities=tuple(int(count) for count in members),
        widths=tuple(tuple(int(width) for width in line) for line in widths),
        measure=measure,
        values=tuple(
            tuple(figure_of(looked_at, region, float(value)) for value in line) for line in scores
        ),
        costs=tuple(tuple(int(value) for value in line) for line in costs),
        best=(int(row), int(column)) if np.isfinite(masked[row, column]) else None,
        limit=limit,
        curve=curve,
        optimum=min(curve, key=lambda one: one.value, default=None),
        original=spot(region.multiplicity, widths[-1]),
    )


def _proportional(region: Region, rows: int) -> IntArray:
    """Widths in the original's proportions that the region's modules can serve; its own last."""
    own = np.asarray(region.widths, dtype=np.float64)
    step = np.asarray(region.steps, dtype=np.float64)
    least = np.ceil(np.asarray(region.least) / step)
    scales = np.unique(np.round(np.geomspace(1.0, own.max(), rows)))[:-1] / own.max()
    wanted = np.maximum(np.round(np.outer(scales, own) / step), least) * step
    below = wanted[(wanted <= own).all(axis=1) & (wanted < own).any(axis=1)]
    lines = dict.fromkeys(tuple(int(width) for width in line) for line in below)
    return np.asarray([*lines, region.widths], dtype=np.int64)


def _most(pricing: RegionCost, widths: IntArray, limit: float) -> int:
    """The most members of these widths that cost no more than the limit; 0 if not one fits."""
    line = tuple(int(width) for width in widths)
    counts = range(1, MOST + 1)
    return bisect_right(counts, limit, key=lambda count: pricing.exact(Design(count, line)))
