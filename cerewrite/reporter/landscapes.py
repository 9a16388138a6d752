"""The landscapes of regions: which are shown, as plain lines, and as the data of a chart."""

from __future__ import annotations

from typing import Any

from cerewrite import ir
from cerewrite.planning import Landscape, Spot, landscape
from cerewrite.planning.budgets import BUDGETS, region_cost
from cerewrite.planning.measures import DEFAULT, MEASURES, region_measures
from cerewrite.reporter.figures import count, members, number
from cerewrite.reporter.section import Section
from cerewrite.reporter.tree import designs_of

MOST = 200
"""Regions whose landscapes a page holds, the first ones; that keeps it small."""

ROWS = (8, 32)
"""Fewest and most widths on a page's landscapes."""

CELLS = 1_600
"""Widths on all landscapes of a page, where that leaves each the fewest."""

BEST = "best on the line"
"""What charts call the least measure that the limit allows."""


def mapped_regions(
    analysis: ir.Analysis, plan: ir.Plan | None = None
) -> dict[str, tuple[Landscape, Spot | None]]:
    """The landscape of every region that carries its sites, with the plan's design on it.

    The cost is the plan's first budget; the limit is what the plan gives the region, or what the
    region costs as it is.

    Args:
        analysis: holds the regions.
        plan: what was chosen, if anything was.
    """
    cost = plan.budgets[0].cost if plan and plan.budgets else "params"
    measure = plan.measure if plan else DEFAULT
    designs = designs_of(analysis, plan)
    regions = [item.region for item in analysis.regions if item.region.sites][:MOST]
    rows = min(max(CELLS // max(len(regions), 1), ROWS[0]), ROWS[1])
    found = {}
    for region in regions:
        priced = cost if _priced(cost, region) else "params"
        design, spot = designs.get(region.name), None
        if design is not None:
            value = MEASURES[measure].of(region_measures(region, design))
            spot = Spot(design, value, region_cost(priced, region, design))
        limit = None if spot is None else float(spot.cost)
        mapped = landscape(region, cost=priced, measure=measure, limit=limit, rows=rows)
        found[region.name] = (mapped, spot)
    return found


def _priced(cost: str, region: ir.Region) -> bool:
    """Whether the region carries what a cost is counted from."""
    kind = BUDGETS[cost]
    needs = ((kind.timed, region.profile), (kind.keeps, region.kept), (kind.trains, region.step))
    return all(known is not None for needed, known in needs if needed)


def landscape_data(mapped: Landscape, chosen: Spot | None = None) -> dict[str, Any]:
    """What a chart of a landscape is drawn from: cells, the line of the limit, marked designs.

    The line is the most members that the limit allows, over the width of the widest class. A
    chosen design whose widths keep the original's proportions lies on it, and is a point of it.
    """
    own = mapped.widths[-1]
    widest = max(range(len(own)), key=own.__getitem__)

    def point(one: Spot, what: str = "") -> dict[str, Any]:
        at = {"n": one.widths[widest], "m": one.multiplicity, "value": one.value}
        return at | ({"what": what} if what else {})

    line = [point(one) for one in mapped.curve]
    on_it = chosen is not None and chosen.cost <= mapped.limit and _proportional(chosen, own)
    if chosen is not None and on_it:
        line = [one for one in line if one["n"] != chosen.widths[widest]] + [point(chosen)]
    marks = [(mapped.original, "as it is"), (mapped.optimum, BEST), (chosen, "chosen")]
    return {
        "widths": [line[widest] for line in mapped.widths],
        "members": mapped.multiplicities,
        "values": [[float(f"{value:.5g}") for value in line] for line in mapped.values],
        "costs": mapped.costs,
        "cost": BUDGETS[mapped.cost].unit,
        "measure": MEASURES[mapped.measure].title,
        "curve": sorted(line, key=lambda one: one["n"]),
        "points": [point(one, what) for one, what in marks if one is not None],
    }


def _proportional(one: Spot, own: tuple[int, ...]) -> bool:
    """Whether widths are one scale of the original's, up to rounding."""
    scales = [(width / whole, whole) for width, whole in zip(one.widths, own, strict=True)]
    return all(abs(scale - scales[0][0]) * whole <= 1 for scale, whole in scales)


def considered(mapped: Landscape, chosen: Spot | None = None) -> Section:
    """The designs along a landscape's limit."""
    best = mapped.optimum
    rows = tuple(
        (members(one.design), number(one.value), count(one.cost), "best" if one == best else "")
        for one in mapped.curve
        if chosen is None or one.design != chosen.design
    )
    title = MEASURES[mapped.measure].title
    lines = [] if rows else ["No design fits."]
    if chosen is not None:
        lines.append(f"Chosen: {members(chosen.design)}.")
    return Section(
        title=f"Considered for region {mapped.region}",
        columns=(">m x n", f">{title}", f">{BUDGETS[mapped.cost].unit}", ""),
        rows=rows,
        lines=tuple(lines),
    )


def landscape_lines(mapped: Landscape) -> list[str]:
    """The budget's curve as plain text, one design a line; the best is marked."""
    title = MEASURES[mapped.measure].title
    lines = [f"{mapped.region}: {title} with {mapped.cost} at most {count(mapped.limit)}"]
    for one in mapped.curve:
        mark = "  <- best" if one == mapped.optimum else ""
        design = members(one.design)
        lines.append(f"  {design}: {number(one.value)}, {count(one.cost)} {mapped.cost}{mark}")
    if not mapped.curve:
        lines.append("  no design fits")
    own = mapped.original
    design = members(own.design)
    lines.append(f"  as it is, {design}: {number(own.value)}, {count(own.cost)} {mapped.cost}")
    return lines
