"""What the terminal shows, against golden files.

After an intended change, write them again with `make golden` and read the difference.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cerewrite.reporter import print_analysis, print_plan, print_report
from cerewrite.reporter.planned import before_and_after
from tests.conftest import Golden
from tests.reporter import builders

GOLDEN = Path(__file__).parent / "golden"

CASES: dict[str, tuple[int, Callable[[Console], None]]] = {
    "analysis": (100, lambda c: print_analysis(builders.analysis(), c)),
    "analysis_sampled": (100, lambda c: print_analysis(builders.analysis(sampled=True), c)),
    "analysis_deep": (100, lambda c: print_analysis(builders.analysis(54), c)),
    "analysis_deep_narrow": (80, lambda c: print_analysis(builders.analysis(54), c)),
    "plan_primal": (100, lambda c: print_plan(builders.plan(), c)),
    "plan_dual": (100, lambda c: print_plan(builders.plan(objective="dual"), c)),
    "plan_empty": (100, lambda c: print_plan(builders.plan(split=False), c)),
    "report": (100, lambda c: print_report(builders.report(depth=54), c)),
    "report_failed": (100, lambda c: print_report(builders.report(passed=False), c)),
    "report_slower": (100, lambda c: print_report(builders.slower_report(), c)),
    "report_verbose": (100, lambda c: print_report(builders.report(depth=54), c, verbose=True)),
}


def shown(width: int, show: Callable[[Console], None]) -> str:
    file = io.StringIO()
    show(Console(width=width, file=file, color_system=None, force_terminal=False))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.mark.parametrize("name", CASES)
def test_the_terminal_shows_what_the_golden_file_says(name: str, golden: Golden) -> None:
    text = shown(*CASES[name])
    assert text == golden(GOLDEN / f"{name}.txt", text)


@pytest.mark.parametrize("name", CASES)
def test_lines_fit_and_nothing_is_called_equivalent(name: str) -> None:
    width, show = CASES[name]
    text = shown(width, show)
    assert max(map(len, text.splitlines())) <= width
    assert "equivalent" not in text.lower()


def test_a_deep_network_is_collapsed_unless_asked_for() -> None:
    def lines(*, verbose: bool) -> list[str]:
        analysis = builders.analysis(200)
        return shown(100, lambda c: print_analysis(analysis, c, verbose=verbose)).splitlines()

    assert len(lines(verbose=False)) < 70
    assert sum(".conv2" in line for line in lines(verbose=True)) >= 200


def test_everything_fits_a_terminal_of_ascii() -> None:
    raw = io.BytesIO()
    console = Console(width=100, file=io.TextIOWrapper(raw, encoding="ascii"))
    print_report(builders.report(), console, verbose=True)
    console.file.flush()
    assert "####" in raw.getvalue().decode("ascii")


def test_names_are_not_read_as_markup() -> None:
    text = shown(100, lambda c: print_analysis(builders.analysis(), c))
    assert "head[0]" in text
    assert "[bold]<shared>[/bold]" in text


def test_unlimited_flops_that_grow_are_warned_about() -> None:
    plan = builders.plan()
    dear = replace(plan, planned=replace(plan.planned, flops=3 * plan.baseline.flops))
    allowed = "What was allowed to grow does: FLOPs 3.0 times the original's."
    assert allowed in before_and_after(dear).lines
    assert not any("allowed to grow" in line for line in before_and_after(plan).lines)
    limited = replace(dear, budgets=(*plan.budgets, replace(plan.budgets[0], cost="flops")))
    assert not any("allowed to grow" in line for line in before_and_after(limited).lines)
