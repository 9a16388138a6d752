"""The landscape's picture: every design drawn, inside the frame, the best one marked."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import pytest

from cerewrite import ir
from cerewrite.ir import Design
from cerewrite.planning import Landscape, landscape
from cerewrite.planning.measures import region_measures
from cerewrite.reporter import landscape_lines, render_html, render_landscape
from cerewrite.reporter.landscape_chart import landscape_chart, planned_landscape
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


def test_the_picture_holds_every_design(found: Landscape) -> None:
    svg = ElementTree.fromstring(landscape_chart(found))
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    cells = svg.findall("rect")
    assert len(cells) == len(found.widths) * len(found.multiplicities)
    assert all(0 < float(c.get("fill-opacity", "0")) <= 1 for c in cells)
    for cell in cells:
        assert 0 <= float(cell.get("x", "-1")) <= width - float(cell.get("width", "0"))
        assert 0 < float(cell.get("height", "0")) < height
    curve, along = (line.get("points", "").split() for line in svg.findall("polyline"))
    assert len(curve) == len(along) == len(found.curve)
    dots = [c for c in svg.findall("circle") if c.get("class") == "dot"]
    places = {f"{c.get('cx')},{c.get('cy')}" for c in dots}
    assert found.optimum is not None
    index = found.curve.index(found.optimum)
    assert places == {curve[index], along[index]}
    assert float(along[index].split(",")[1]) == max(float(p.split(",")[1]) for p in along)
    darkest = max(cells, key=lambda c: float(c.get("fill-opacity", "0")))
    title = darkest.find("title")
    assert title is not None and title.text is not None
    least = min(value for row in found.values for value in row)
    assert f": {least:.4g}, " in title.text


def test_a_page_escapes_and_lines_mark_the_best(found: Landscape) -> None:
    page = render_landscape(found)
    assert "a&lt;b" in page and "a<b" not in page and not re.search(r"https?:|<script", page)
    marked = [line for line in landscape_lines(found) if "<- best" in line]
    assert len(marked) == 1 and f"{found.optimum.multiplicity} x" in marked[0]  # type: ignore[union-attr]
    empty = landscape(REGION, limit=0.0)
    assert "no design fits" in "\n".join(landscape_lines(empty))
    assert ElementTree.fromstring(landscape_chart(empty)).findall("polyline")


def test_a_report_shows_the_region_with_the_largest_gain() -> None:
    wide = dataclasses.replace(chain_region("wide", [256, 256], 100, 10))
    analysis = analysis_of([wide, chain_region("narrow", [24, 16, 24], 100, 10)])
    plan = make_plan(analysis, budget="params=0.9x")
    gains = {
        split.region: region_measures(region, Design(1, region.widths)).log_variance
        - split.log_variance
        for split, region in zip(plan.splits, plan.regions, strict=True)
    }
    assert len(gains) == 2
    mapped = planned_landscape(plan)
    assert mapped is not None
    found, chosen = mapped
    assert found.region == max(gains, key=gains.__getitem__)
    assert chosen.cost == found.limit
    page = render_html(ir.Report(analysis, plan))
    assert f"Landscape of {found.region}" in page and 'class="chosen"' in page
    assert planned_landscape(builders.plan()) is None


def test_only_widths_that_the_modules_can_serve_are_shown() -> None:
    norm = ir.PerChannel("norm", "group_norm", (REGION.classes[0],), 2, divisor=8, least=2)
    found = landscape(dataclasses.replace(REGION, modules=(norm,)), rows=30)
    assert len(found.widths) > 4 and found.widths[-1] == REGION.widths
    assert all(row[0] % 8 == 0 and row[0] >= 8 and min(row) >= 1 for row in found.widths)
    assert [row[0] for row in found.widths] == sorted(row[0] for row in found.widths)
