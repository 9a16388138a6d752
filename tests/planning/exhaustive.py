"""Exhaustive search over whole small models, written without the planner's own code."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence

import numpy as np

from cerewrite.ir import Analysis, Region
from cerewrite.planning.measures import MEASURES
from cerewrite.planning.problem import WIDEST


def count(region: Region, m: int, widths: Sequence[int], cost: str) -> int:
    """The cost of a region's design, summed layer by layer and module by module."""
    total = 0
    for layer in region.layers:
        n_in = layer.in_channels if layer.role == "entry" else layer.reads(widths)
        n_out = layer.out_channels if layer.role == "exit" else m * widths[layer.target]
        if layer.role == "exit":
            n_in *= m
        weights = layer.kernel * n_in * n_out // layer.groups
        if cost == "params":
            total += weights + (n_out if layer.bias else 0)
        else:
            total += 2 * weights * layer.positions
    for module in region.modules:
        per = module.params if cost == "params" else module.flops
        total += per * m * region.width_of(module, widths)
    return total


def designs(
    region: Region, costs: Sequence[str], cap: Sequence[float], measure: str = "nu"
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Costs and score of the original design and of every one within the caps."""
    asked = MEASURES[measure]
    own = (region.multiplicity, region.widths)
    spent = tuple(count(region, *own, cost) for cost in costs)
    yield spent, asked.region_score(region.sites, region.design)
    rows, row, members, costs_of = within(region, tuple(costs), tuple(cap))
    if rows:
        alone = asked.member(region.sites, np.asarray(rows))
        scores = asked.score(alone[np.asarray(row)], np.asarray(members))
        yield from zip(costs_of, scores.tolist(), strict=True)


Within = tuple[list[tuple[int, ...]], list[int], list[float], list[tuple[int, ...]]]
"""Widths; per design the number of its widths, its members, its costs."""


@functools.lru_cache(512)  # every measure asks for the same ones
def within(region: Region, costs: tuple[str, ...], cap: tuple[float, ...]) -> Within:
    """Every design within the caps."""
    interior = any(layer.role == "interior" for layer in region.layers)
    rows, row, members, costs_of = [], [], [], []
    for widths in itertools.product(*(range(1, WIDEST * size + 1) for size in region.sizes)):
        # without an interior layer, members are the same network as one wide member
        for m in itertools.count(1) if interior else (1,):
            spent = tuple(count(region, m, widths, cost) for cost in costs)
            if any(s > c for s, c in zip(spent, cap, strict=True)):
                break
            if m == 1:
                rows.append(widths)
            row.append(len(rows) - 1)
            members.append(float(m))
            costs_of.append(spent)
    return rows, row, members, costs_of


def undominated(table: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """The entries that no other one beats or equals everywhere."""
    kept: dict[tuple[int, ...], float] = {}
    for costs, score in sorted(table.items()):
        rivals = itertools.islice(reversed(kept.items()), 1 if len(costs) == 1 else None)
        if not any(s <= score and all(map(operator.le, c, costs)) for c, s in rivals):
            kept[costs] = score
    return kept


def search(
    analysis: Analysis, limits: dict[str, float], measure: str = "nu"
) -> dict[tuple[int, ...], float]:
    """Least total score of the regions for every reachable tuple of model costs."""
    costs = list(limits)
    regions = [estimate.region for estimate in analysis.regions]
    own = [[count(r, r.multiplicity, r.widths, c) for c in costs] for r in regions]
    least = [[count(r, 1, [1] * len(r.sizes), c) for c in costs] for r in regions]
    base = {"params": analysis.params, "flops": analysis.flops}
    fixed = [base[c] - sum(o[j] for o in own) for j, c in enumerate(costs)]
    table: dict[tuple[int, ...], float] = {tuple(fixed): 0.0}
    for index, region in enumerate(regions):
        later = [sum(line[j] for line in least[index + 1 :]) for j in range(len(costs))]
        others = [
            sum(line[j] for i, line in enumerate(least) if i != index) + fixed[j]
            for j in range(len(costs))
        ]
        cap = [limits[c] - others[j] for j, c in enumerate(costs)]
        best: dict[tuple[int, ...], float] = {}
        for spent, score in designs(region, costs, cap, measure):
            best[spent] = min(score, best.get(spent, math.inf))
        best = undominated(best)
        merged: dict[tuple[int, ...], float] = {}
        for (done, sum_done), (spent, score) in itertools.product(table.items(), best.items()):
            total = tuple(d + s for d, s in zip(done, spent, strict=True))
            if any(total[j] + later[j] > limits[c] for j, c in enumerate(costs)):
                continue
            if sum_done + score < merged.get(total, math.inf):
                merged[total] = sum_done + score
        table = undominated(merged)
    return table
