"""The HTML report: self-contained, well-formed, escaped, complete; every figure once."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from cerewrite import ir
from cerewrite.planning import landscape
from cerewrite.reporter import render_html, render_landscape
from cerewrite.reporter.content import page_sections
from cerewrite.reporter.figures import count, number, with_error
from cerewrite.reporter.landscapes import mapped_regions
from cerewrite.reporter.planned import MENU, claim, menu
from tests.reporter import builders
from tests.reporter.reports import LARGE, stored

VOID = {"meta", "input"}
SCRIPTS = 4
"""Data, two libraries, and the page's own."""


class Page(HTMLParser):
    """Collects tags, text and scripts, and checks that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        assert not {"src", "onload", "onclick", "srcset", "action"} & set(given)
        assert (given.get("href") or "#").startswith("#")
        if given.get("http-equiv"):
            self.policy = given["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        if where != "style":
            (self.scripts if where == "script" else self.text).append(data)

    @property
    def data(self) -> Any:
        """What the page's scripts draw."""
        return json.loads(self.scripts[0])


@functools.cache
def rendered(name: str) -> str:
    """The page of a stored report."""
    return render_html(stored(name))


@pytest.fixture(scope="module", params=LARGE)
def large(request: pytest.FixtureRequest) -> ir.Report:
    return stored(request.param)


def test_the_page_stands_alone_and_names_its_scripts() -> None:
    page = render_html(builders.report(depth=54))
    found = Page(page)
    assert not {"link", "img", "iframe", "object", "form", "base"} & set(found.tags)
    assert found.tags.count("script") == len(found.scripts) == SCRIPTS
    libraries = "".join(found.scripts)
    assert not re.search(r"https?:|url\(|@import", page.replace(libraries, "").split("<script")[0])
    for code in found.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in found.policy
    assert "default-src 'none'" in found.policy and "http" not in found.policy
    assert "unsafe-inline" not in found.policy.partition("script-src")[2]
    assert page.startswith("<!doctype html>") and "prefers-color-scheme: dark" in page
    assert "equivalent" not in " ".join(found.text).lower()
    assert sum("Permission to use, copy" in code for code in found.scripts) == 2


def test_the_page_says_what_its_sections_say() -> None:
    report = builders.slower_report()
    text = " ".join(Page(render_html(report)).text)
    for section in page_sections(report):
        cells = [cell for row in section.rows for cell in row if isinstance(cell, str)]
        for part in (section.title, *section.lines, *cells):
            assert part in text
    assert report.plan is not None and text.count(claim(report.plan)) == 1
    for rejection in (*report.analysis.rejections, *report.plan.rejections):  # type: ignore[union-attr]
        assert rejection.reason in text and rejection.advice in text


@pytest.mark.parametrize("name", LARGE)
def test_every_figure_is_there_once_and_is_the_records(name: str) -> None:
    """Totals, measures, layers' corrections: as many times as records hold that value."""
    found, large = Page(rendered(name)), stored(name)
    words = [word.strip() for word in found.text]
    plan, analysis = large.plan, large.analysis
    assert words.count("Before and after") == (2 if plan else 0)  # the heading, and its link
    old = plan.baseline if plan else analysis
    sizes = [count(old.params)] + ([count(plan.planned.params)] if plan else [])
    for text in sizes:  # a budget's limit may be equal, and says what it is
        assert sum(word in (text, f"{text} parameters") for word in _split(words)) == 1
    if plan is not None:
        new = plan.planned
        for measure in (new.nu, new.log_variance, new.leading_order, new.sign_variance):
            assert words.count(number(measure)) == 1
    for layer in filter(lambda layer: layer.kappa, analysis.layers):
        assert words.count(with_error(layer.kappa, layer.kappa_stderr)) == sum(
            with_error(one.kappa, one.kappa_stderr) == with_error(layer.kappa, layer.kappa_stderr)
            for one in analysis.layers
        )
    signal = found.data["signal"]
    assert signal["names"] == [layer.name for layer in analysis.layers]
    assert signal["up"] == [layer.forward_share for layer in analysis.layers]


def _split(words: list[str]) -> list[str]:
    return [part for word in words for part in word.split(", ")]


def test_what_users_wrote_is_escaped() -> None:
    evil = "a\"><svg onload=x>'</script><script>alert(1)</script>&amp;"
    analysis = dataclasses.replace(builders.analysis(), model="<b>", gain="\"><img src='x'>")
    layer = dataclasses.replace(analysis.layers[0], name=evil, note=evil, region=evil)
    refusal = ir.Rejection(evil, evil, evil, evil)
    region = dataclasses.replace(analysis.regions[0], name=evil)
    region = dataclasses.replace(region, region=dataclasses.replace(region.region, name=evil))
    analysis = dataclasses.replace(
        analysis,
        layers=(layer, *analysis.layers[1:]),
        rejections=(refusal,),
        regions=(region,),
        modules=(ir.ModuleSummary(evil, evil, (3, 2), 6, (evil,)),),
    )
    row = ir.MenuRow(evil, evil, 1, 0.5, 1.0, None, 1.0, 1.0, True, "", ((evil, 2, (3,)),))
    plan = dataclasses.replace(builders.plan(), menu=(row,), note=evil)
    page = render_html(dataclasses.replace(builders.report(), analysis=analysis, plan=plan))
    found = Page(page)
    assert found.tags.count("script") == page.count("<script") == SCRIPTS
    assert not {"svg", "img"} & set(found.tags) and "<b>" not in page.split("<tbody>")[0]
    assert found.data["signal"]["names"][0] == evil
    assert found.data["front"]["points"][1]["name"] == evil
    assert " ".join(found.text).count(evil) >= 5


def test_nothing_steers_a_terminal_that_shows_the_page() -> None:
    analysis = builders.analysis()
    layer = dataclasses.replace(analysis.layers[0], name="a\x1b[31m\u202e")
    page = render_html(ir.Report(dataclasses.replace(analysis, layers=(layer,))))
    region = dataclasses.replace(stored("resnet50").analysis.regions[0].region, name="a\x1b[31m")
    other = render_landscape(landscape(region, rows=2))
    assert "\x1b" not in page + other and "\u202e" not in page
    assert Page(page).data["signal"]["names"] == ["a\\x1b[31m\\u202e"]


def test_an_analysis_alone_and_an_empty_one_are_rendered() -> None:
    analysis = builders.analysis()
    empty = dataclasses.replace(
        analysis, layers=(), regions=(), rejections=(), assumptions=(), params=0, flops=0
    )
    for one in (analysis, empty):
        text = " ".join(Page(render_html(ir.Report(analysis=one))).text)
        assert "Before and after" not in text and one.model in text


def test_figures_that_are_not_finite_are_drawn_as_nothing() -> None:
    analysis = builders.analysis()
    layer = dataclasses.replace(analysis.layers[0], forward_share=float("nan"), share=float("inf"))
    page = render_html(ir.Report(dataclasses.replace(analysis, layers=(layer,))))
    assert Page(page).data["signal"]["up"] == [None]


@pytest.mark.thorough
def test_a_report_round_trips_through_json(large: ir.Report) -> None:
    again = ir.loads(ir.Report, ir.dumps(large), source="report.json")
    assert again == large
    assert render_html(again) == render_html(large)


@pytest.mark.parametrize("name", LARGE)
def test_pages_are_small(name: str) -> None:
    assert len(rendered(name)) < 2_000_000


@pytest.mark.thorough
def test_a_page_of_2000_modules_is_below_its_limit() -> None:
    """It has the landscapes of 200 regions."""
    region = builders.analysis().regions[0]
    sites = tuple(
        ir.Site(f"net.{i}", i, 0.3, 0.2, 5.0, 5.0, 1.0) for i in range(len(region.region.classes))
    )
    regions = tuple(
        ir.RegionEstimate(
            f"r{i}",
            region.measures,
            dataclasses.replace(region.region, name=f"r{i}", sites=sites),
        )
        for i in range(300)
    )
    modules = tuple(ir.ModuleSummary(f"part.{i}.linear", "Linear", (8, 8), 72) for i in range(2000))
    layers = tuple(builders.layer(f"part.{i}.linear", 8, 0.01, 0.001, "r1") for i in range(2000))
    analysis = dataclasses.replace(
        builders.analysis(), regions=regions, modules=modules, layers=layers
    )
    page = render_html(ir.Report(analysis))
    assert 2_000_000 < len(page) < 5_000_000
    assert len(mapped_regions(analysis)) == 200


def test_the_front_holds_every_plan_of_the_menu() -> None:
    plan = stored("resnet50").plan
    assert plan is not None and plan.menu
    (section,) = menu(plan)
    assert section.title == MENU
    front = Page(rendered("resnet50")).data["front"]
    rows = [row for row in plan.menu if not row.refused]
    assert [(p["x"], p["y"]) for p in front["points"][1:]] == [(r.step, r.measure) for r in rows]
    chosen = [p for p in front["points"] if p["what"] == "chosen"]
    assert len(chosen) == 1
    split = plan.splits[0]
    row = next(row for row in rows if row.designs)
    assert all(f"{name}: {m} x" in front["points"][1 + rows.index(row)]["tip"]
               for name, m, _ in row.designs[:12])  # fmt: skip
    assert split.region in {name for name, _, _ in row.designs}


def test_pages_of_landscapes_hold_no_foreign_markup() -> None:
    (region,) = [r.region for r in stored("resnet50").analysis.regions if r.name == "layer1.1"]
    page = render_landscape(dataclasses.replace(landscape(region, rows=6), region="a<b"))
    assert "a&lt;b" in page and "a<b" not in page
    assert Page(page).tags.count("script") == SCRIPTS
