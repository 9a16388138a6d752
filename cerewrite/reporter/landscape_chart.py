"""The landscape of one region as inline SVG: a map over members and widths, and its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from cerewrite import ir
from cerewrite.planning import Landscape, Spot, landscape
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.measures import MEASURES, region_measures
from cerewrite.reporter.charts import MARGIN, WIDTH
from cerewrite.reporter.figures import count, members, number

LEFT, RIGHT = 90, 10
"""Room beside the panels, in SVG units."""

MAP, CURVE = 240, 150
"""Heights of the map and of the panel along the budget."""

FAINT = 0.08
"""Opacity of the largest measure on the map; the least one is 1."""


def planned_landscape(plan: ir.Plan) -> tuple[Landscape, Spot] | None:
    """The landscape of the region that a plan gains most in, and its design there.

    None where no region that is split carries what was measured of it.

    The gain is in the plan's measure, or in its first budget's cost for a dual plan; the limit
    is what the plan gives the region.
    """
    cost = plan.budgets[0].cost if plan.budgets else "params"
    regions = {region.name: region for region in plan.regions if region.sites}
    gains: list[tuple[float, ir.Region, Spot]] = []
    for split in plan.splits:
        region = regions.get(split.region)
        if region is None:
            continue
        after = region_cost(cost, region, split.design)
        before = region_cost(cost, region, region.design)
        measure = MEASURES[plan.measure]
        gain = measure.of(region_measures(region, region.design))
        reached = measure.of(region_measures(region, split.design))
        spot = Spot(split.design, reached, after)
        gain = before - after if plan.objective == "dual" else gain - reached
        gains.append((gain, region, spot))
    if not gains:
        return None
    _, region, spot = max(gains, key=lambda item: item[0])
    limit = float(spot.cost)
    return landscape(region, cost=cost, measure=plan.measure, limit=limit, rows=32), spot


def landscape_chart(mapped: Landscape, chosen: Sequence[Spot] = ()) -> str:
    """Two panels over the width of a member: the map over members, and the measure at the budget.

    Darker cells have a smaller measure. The line is the most members that the budget allows, the
    full dot the best design on it, the ring the region as it is, the filled ring a chosen one.

    Args:
        mapped: the landscape.
        chosen: further designs to mark, such as a plan's.
    """
    axes = _Axes(mapped)
    name = f"{MEASURES[mapped.measure].title} of {mapped.region}"
    shown = [(axes.x(one), axes.y(one.multiplicity), one) for one in mapped.curve]
    line = " ".join(f"{x:.2f},{y:.2f}" for x, y, _ in shown)
    parts = [*_cells(mapped, axes), f'<polyline class="budget" points="{line}"/>']
    marks = [("ring", mapped.original), *(("chosen", one) for one in chosen)]
    marks += [("dot", mapped.optimum)] if mapped.optimum else []
    parts += [_mark(kind, axes.x(one), axes.y(one.multiplicity), one) for kind, one in marks]
    parts += [*_ticks(mapped, axes), *_along(mapped, axes)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {MAP + CURVE + 4 * MARGIN}" role="img" '
        f'aria-label="{escape(name)}">{"".join(parts)}</svg>'
    )


class _Axes:
    """Where widths and members lie: both on logarithmic axes."""

    def __init__(self, mapped: Landscape) -> None:
        self.widest = max(range(len(mapped.widths[-1])), key=mapped.widths[-1].__getitem__)
        self.steps = [math.log(row[self.widest]) for row in mapped.widths]
        self.columns = [math.log(m) for m in mapped.multiplicities]

    def at(self, width: float) -> float:
        """Horizontal place of a logarithm of a width; beyond the map it is its edge."""
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(width, self.steps)

    def x(self, one: Spot) -> float:
        """Horizontal place of a design."""
        return self.at(math.log(one.widths[self.widest]))

    def y(self, multiplicity: float) -> float:
        """Vertical place of a number of members, in the map; more than it holds are at its top."""
        return MARGIN + MAP * (1 - _share(math.log(multiplicity), self.columns))


def _share(value: float, known: Sequence[float]) -> float:
    low, high = known[0], known[-1]
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _edges(known: Sequence[float]) -> list[float]:
    """Where cells around known places begin and end."""
    middle = [(a + b) / 2 for a, b in pairwise(known)]
    return [known[0], *middle, known[-1]]


def _cells(mapped: Landscape, axes: _Axes) -> list[str]:
    finite = [v for row in mapped.values for v in row if 0 < v < 1e300]
    low, high = math.log(min(finite, default=1.0)), math.log(max(finite, default=1.0))
    xs = [axes.at(edge) for edge in _edges(axes.steps)]
    ys = [axes.y(math.exp(edge)) for edge in _edges(axes.columns)]
    parts = []
    for i, row in enumerate(mapped.widths):
        for j, m in enumerate(mapped.multiplicities):
            value, cost = mapped.values[i][j], mapped.costs[i][j]
            depth = (high - math.log(min(max(value, 1e-300), 1e300))) / (high - low or 1.0)
            shade = FAINT + (1 - FAINT) * min(max(depth, 0.0), 1.0)
            text = f"{members(ir.Design(m, row))}: {number(value)}, {count(cost)} {mapped.cost}"
            parts.append(
                f'<rect class="cell" x="{xs[i]:.2f}" y="{ys[j + 1]:.2f}" '
                f'width="{xs[i + 1] - xs[i]:.2f}" height="{ys[j] - ys[j + 1]:.2f}" '
                f'fill-opacity="{shade:.3f}"><title>{escape(text)}</title></rect>'
            )
    return parts


def _ticks(mapped: Landscape, axes: _Axes) -> list[str]:
    """Numbers of members at the left, widths below the map."""
    parts, last = [], math.inf
    for m in mapped.multiplicities:
        if last - axes.y(m) >= 14:
            last = axes.y(m)
            parts.append(f'<text x="{LEFT - 64}" y="{last + 4:.2f}">m {m}</text>')
    base, right = MARGIN + MAP + 16, -math.inf
    for row in mapped.widths:
        place = axes.at(math.log(row[axes.widest]))
        if place - right >= 60 and place < WIDTH - 30:
            right = place
            parts.append(f'<text x="{place:.2f}" y="{base}">n {row[axes.widest]}</text>')
    title = f"{mapped.region}: {MEASURES[mapped.measure].title} over members m and width n"
    title += f"; the line: {count(mapped.limit)} {mapped.cost}"
    return [*parts, f'<text x="{LEFT}" y="{MARGIN - 8}">{escape(title)}</text>']


def _along(mapped: Landscape, axes: _Axes) -> list[str]:
    """The measure at the budget, over the same widths, on a logarithmic axis."""
    usable = [one for one in mapped.curve if 0 < one.value < 1e300]
    if not usable:
        return []
    top = MAP + 3 * MARGIN
    logs = [math.log(one.value) for one in usable]
    ends = (min(logs), max(logs))

    def y(one: Spot) -> float:
        return top + CURVE * (1 - _share(math.log(one.value), ends))

    line = " ".join(f"{axes.x(one):.2f},{y(one):.2f}" for one in usable)
    least, most = (number(math.exp(value)) for value in ends)
    parts = [
        f'<line class="axis" x1="{LEFT}" y1="{top + CURVE}" x2="{WIDTH}" y2="{top + CURVE}"/>',
        f'<polyline class="budget" points="{line}"/>',
        f'<text x="0" y="{top + 8}">{most}</text><text x="0" y="{top + CURVE}">{least}</text>',
    ]
    if mapped.optimum in usable:
        assert mapped.optimum is not None
        parts.append(_mark("dot", axes.x(mapped.optimum), y(mapped.optimum), mapped.optimum))
    return parts


def _mark(kind: str, x: float, y: float, one: Spot) -> str:
    text = f"{members(one.design)}: {number(one.value)}"
    return (
        f'<circle class="{kind}" cx="{x:.2f}" cy="{y:.2f}" r="5">'
        f"<title>{escape(text)}</title></circle>"
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
