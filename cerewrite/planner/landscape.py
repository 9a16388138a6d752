"""The landscape of one region: measure and cost over members and widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerewrite.budgets import BUDGETS
from cerewrite.ir import Region
from cerewrite.measures import DEFAULT, MEASURES


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


def landscape(
    region: Region,
    *,
    cost: str = "params",
    measure: str = DEFAULT,
    limit: float | None = None,
    multiplicities: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    rows: int = 24,
) -> Landscape:
    """Map measure and cost of a region over members and proportional widths.

    Args:
        region: the region, with its sites.
        cost: registered cost.
        measure: registered measure.
        limit: the most it may cost; by default what it costs now.
        multiplicities: the columns.
        rows: most rows; widths from 1 to the original, in geometric steps of the widest class.

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
    """
    own = np.asarray(region.widths, dtype=np.float64)
    steps = np.unique(np.round(np.geomspace(1.0, own.max(), rows)))
    widths = np.maximum(np.round(np.outer(steps, own / own.max())), 1.0).astype(np.int64)
    widths[-1] = own.astype(np.int64)
    members = np.asarray(multiplicities, dtype=np.int64)
    pricing = BUDGETS[cost].region(region)
    costs = pricing.table(members, widths)
    if limit is None:
        original = np.asarray([region.multiplicity], dtype=np.int64)
        limit = float(pricing.table(original, widths[-1:])[0, 0])
    looked_at = MEASURES[measure]
    alone = looked_at.member(region.sites, widths)[:, None, :]
    scores = looked_at.score(alone, members.astype(np.float64))
    masked = np.where(costs <= limit, scores, np.inf)
    row, column = np.unravel_index(int(np.argmin(masked)), masked.shape)
    return Landscape(
        region=region.name,
        cost=cost,
        multiplicities=tuple(int(count) for count in members),
        widths=tuple(tuple(int(width) for width in line) for line in widths),
        measure=measure,
        values=tuple(tuple(looked_at.figure(float(value)) for value in line) for line in scores),
        costs=tuple(tuple(int(value) for value in line) for line in costs),
        best=(int(row), int(column)) if np.isfinite(masked[row, column]) else None,
        limit=limit,
    )
