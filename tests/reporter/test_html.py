"""The HTML report: self-contained, well-formed, escaped, complete."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from cerewrite import ir
from cerewrite.reporter import render_html
from cerewrite.reporter.content import report_sections
from tests.reporter import builders

VOID = {"meta", "rect", "line"}


class Balance(HTMLParser):
    """Collects text and attributes, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_stands_alone() -> None:
    page = render_html(builders.report(depth=54))
    parser = parsed(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parser.tags)
    assert not re.search(r"https?:|url\(|@import", page)
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in page
    assert "equivalent" not in page.lower()


def test_the_page_says_what_the_terminal_says() -> None:
    report = builders.report(depth=54)
    text = " ".join(parsed(render_html(report)).text)
    for section in report_sections(report, full=True):
        cells = [cell for row in section.rows for cell in row if isinstance(cell, str)]
        for part in (section.title, *section.lines, *cells):
            assert part in text


def test_what_users_wrote_is_escaped() -> None:
    analysis = dataclasses.replace(
        builders.analysis(), model="<script>alert(1)</script>", gain="\"><img src='x'>"
    )
    evil = dataclasses.replace(analysis.layers[0], name='a"><svg onload=x>')
    analysis = dataclasses.replace(analysis, layers=(evil, *analysis.layers[1:]))
    page = render_html(dataclasses.replace(builders.report(), analysis=analysis))
    assert "script" not in parsed(page).tags
    assert "&lt;script&gt;" in page


def test_charts_draw_every_layer_within_the_frame() -> None:
    report = builders.report(depth=54)
    page = render_html(report)
    costs, shares = (ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page))
    assert len(costs.findall("rect")) == 12
    bars = shares.findall("rect")
    assert len(bars) == 54
    assert all(0 <= float(bar.get("y", "-1")) <= 180 for bar in bars)
    assert max(float(bar.get("height", "0")) for bar in bars) > 150


def test_an_analysis_alone_and_an_empty_one_are_rendered() -> None:
    analysis = builders.analysis()
    empty = dataclasses.replace(
        analysis, layers=(), regions=(), rejections=(), assumptions=(), params=0, flops=0
    )
    for one in (analysis, empty):
        text = " ".join(parsed(render_html(ir.Report(analysis=one))).text)
        assert "Before and after" not in text


def test_a_report_round_trips_through_json() -> None:
    report = builders.report(depth=54)
    again = ir.loads(ir.Report, ir.dumps(report), source="report.json")
    assert again == report
    assert render_html(again) == render_html(report)
