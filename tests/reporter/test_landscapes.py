"""Landscapes: every design in the chart's data, the best and the chosen one marked."""

from __future__ import annotations

import dataclasses

import pytest

from cerewrite import ir
from cerewrite.ir import Design
from cerewrite.planning import Landscape, Spot, landscape
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.measures import region_measures
from cerewrite.reporter import landscape_lines, render_html
from cerewrite.reporter.landscapes import considered, landscape_data, mapped_regions
from tests.planning.builders import analysis_of, chain_region
from tests.planning.builders import plan_freely as make_plan
from tests.reporter import builders

REGION = chain_region("a<b", [64, 48, 64], 100, 10)


@pytest.fixture(scope="module")
def found() -> Landscape:
    return landscape(REGION, rows=12)


def test_the_curve_holds_the_most_members_that_fit(found: Landscape) -> None:
    for one in found.curve:
        more = landscape(REGION, multiplicities=[one.multiplicity, one.multiplicity + 1], rows=12)
        here, beyond = more.costs[more.widths.index(one.widths)]
        assert here == one.cost <= found.limit < beyond
        assert one.value == more.values[more.widths.index(one.widths)][0]
        assert one.value == pytest.approx(region_measures(REGION, one.design).log_variance)
    assert found.optimum in found.curve and len(found.curve) == len(found.widths)
    assert found.optimum is not None
    assert found.optimum.value == min(one.value for one in found.curve) < found.original.value
    assert landscape(REGION, limit=0.0).optimum is None
    assert ir.loads(Landscape, ir.dumps(found), source="landscape.json") == found


def test_the_chart_holds_every_design_and_the_line(found: Landscape) -> None:
    data = landscape_data(found)
    widest = max(range(3), key=lambda i: found.widths[-1][i])
    assert data["widths"] == [row[widest] for row in found.widths]
    assert data["members"] == found.multiplicities
    assert data["costs"] == found.costs
    for shown, exact in zip(data["values"], found.values, strict=True):
        assert shown == pytest.approx(exact, rel=1e-4)
    line = [(p["n"], p["m"], p["value"]) for p in data["curve"]]
    assert line == [(o.widths[widest], o.multiplicity, o.value) for o in found.curve]
    marks = {p["what"]: p for p in data["points"]}
    assert set(marks) == {"as it is", "best on the line"} and found.optimum is not None
    best = marks["best on the line"]
    assert (best["n"], best["m"]) == (found.optimum.widths[widest], found.optimum.multiplicity)
    assert best["value"] == min(value for _, _, value in line)


def test_a_chosen_design_lies_on_the_line() -> None:
    """Widths between the map's rows are a point of the line; others than in proportion are none."""
    limit = region_cost("params", REGION, Design(7, (9, 7, 9)))
    mapped = landscape(REGION, limit=float(limit), rows=5)
    assert all(row[0] != 9 for row in mapped.widths)
    for widths, on_it in (((9, 7, 9), True), ((9, 2, 9), False)):
        spot = Spot(Design(7, widths), 0.1, limit)
        line = landscape_data(mapped, spot)["curve"]
        assert ({"n": 9, "m": 7, "value": 0.1} in line) == on_it
        assert [p["n"] for p in line] == sorted(p["n"] for p in line)


def test_lines_mark_the_best(found: Landscape) -> None:
    marked = [line for line in landscape_lines(found) if "<- best" in line]
    assert len(marked) == 1 and f"{found.optimum.multiplicity} x" in marked[0]  # type: ignore[union-attr]
    empty = landscape(REGION, limit=0.0)
    assert "no design fits" in "\n".join(landscape_lines(empty))
    assert considered(empty).lines == ("No design fits.",) and not landscape_data(empty)["curve"]


def test_every_region_is_mapped_at_what_the_plan_gives_it() -> None:
    wide = dataclasses.replace(chain_region("wide", [256, 256], 100, 10))
    analysis = analysis_of([wide, chain_region("narrow", [24, 16, 24], 100, 10)])
    plan = make_plan(analysis, budget="params=0.9x")
    maps = mapped_regions(analysis, plan)
    assert list(maps) == ["wide", "narrow"] and len(plan.splits) == 2
    for split in plan.splits:
        mapped, chosen = maps[split.region]
        assert chosen is not None and chosen.cost == mapped.limit
        assert chosen.value == pytest.approx(split.log_variance)
        rows = considered(mapped, chosen).rows
        assert len(rows) >= len(mapped.curve) - 1
    page = render_html(ir.Report(analysis, plan))
    assert page.count('data-chart="map"') == 2 and "Considered for region wide" in page
    assert not mapped_regions(builders.analysis(), builders.plan())


def test_only_widths_that_the_modules_can_serve_are_shown() -> None:
    norm = ir.PerChannel("norm", "group_norm", (REGION.classes[0],), 2, divisor=8, least=2)
    found = landscape(dataclasses.replace(REGION, modules=(norm,)), rows=30)
    assert len(found.widths) > 4 and found.widths[-1] == REGION.widths
    assert all(row[0] % 8 == 0 and row[0] >= 8 and min(row) >= 1 for row in found.widths)
    assert [row[0] for row in found.widths] == sorted(row[0] for row in found.widths)
