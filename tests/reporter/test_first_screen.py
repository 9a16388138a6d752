"""The first screen fits 80 x 24, and says what was bought, at what cost, and what to do next."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from cerewrite import ir
from cerewrite.reporter import first_screen, print_first_screen
from tests.conftest import Golden
from tests.reporter import builders
from tests.reporter.test_terminal import GOLDEN

NEXT = ("cerewrite bench out  # time both models",)
RECORDS: dict[str, ir.Plan | ir.Report] = {
    "plan": builders.plan(),
    "dual": builders.plan(objective="dual"),
    "empty": builders.plan(split=False),
    "deep": builders.report(depth=54),
    "failed": builders.report(passed=False),
    "slower": builders.slower_report(),
}


@pytest.mark.parametrize("name", RECORDS)
def test_it_fits_and_is_as_recorded(name: str, golden: Golden) -> None:
    lines = first_screen(RECORDS[name], "model.py", NEXT)
    assert len(lines) <= 22 and max(map(len, lines)) < 80
    text = "\n".join(lines) + "\n"
    assert golden(GOLDEN / f"first_screen_{name}.txt", text) == text
    assert all(f"\n  {label}" in text for label in ("bought", "cost", "next"))


def test_a_failure_and_slowness_are_said_before_all_other_notes() -> None:
    for name, word in (("failed", "FAILED"), ("slower", "SLOWER")):
        lines = first_screen(RECORDS[name])
        note = next(line for line in lines if line.startswith("  note"))
        assert word in note
        assert "passed" not in lines[-1] or name == "slower"


def test_long_names_and_many_notes_still_fit() -> None:
    report = builders.report(depth=54)
    assert report.plan is not None
    splits = tuple(
        dataclasses.replace(split, region="a.very.long.name." * 12) for split in report.plan.splits
    )
    plan = dataclasses.replace(report.plan, splits=splits, model="M" * 300)
    lines = first_screen(dataclasses.replace(report, plan=plan), "folder/" * 40, ("word " * 30,))
    assert len(lines) <= 22 and max(map(len, lines)) < 80


def test_what_steers_a_terminal_is_written_out() -> None:
    plan = dataclasses.replace(builders.plan(), model="Net\x1b[2J" * 9)
    out = io.StringIO()
    print_first_screen(plan, Console(file=out, width=80))
    assert "\x1b[2J" not in out.getvalue() and "\\x1b[2J" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) < 80
