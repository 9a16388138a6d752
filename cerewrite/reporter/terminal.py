"""Reports for the terminal: readable at 80 to 100 columns, with or without colour."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cerewrite import ir
from cerewrite.errors import printable
from cerewrite.ir.assessed import Assessment
from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.reporter.assessed import assessment_sections
from cerewrite.reporter.content import analysis_sections, plan_sections, report_sections
from cerewrite.reporter.diagnosed import comparison_sections, diagnosis_sections
from cerewrite.reporter.figures import percent
from cerewrite.reporter.section import Cell, Section, Share, Verdict

BAR = 10
"""Columns of the longest bar."""

WIDE = 90
"""Columns of a terminal from which on bars are drawn."""


def print_analysis(analysis: ir.Analysis, console: Console, *, verbose: bool = False) -> None:
    """Print an analysis: headline, layers, regions, refusals, assumptions.

    Args:
        analysis: what to print.
        console: where to.
        verbose: every layer, region and refusal instead of those that weigh most.
    """
    _print(analysis_sections(analysis, full=verbose), console)


def print_plan(plan: ir.Plan, console: Console, *, verbose: bool = False) -> None:
    """Print a plan: the request and its range, splits, refusals, before and after.

    Args:
        plan: what to print.
        console: where to.
        verbose: every split and refusal instead of the first.
    """
    _print(plan_sections(plan, full=verbose), console)


def print_report(report: ir.Report, console: Console, *, verbose: bool = False) -> None:
    """Print everything that a run found out, the conclusion last.

    Args:
        report: what to print.
        console: where to.
        verbose: every row instead of those that weigh most, and the renamed parameters.
    """
    _print(report_sections(report, full=verbose), console)


def print_assessment(found: Assessment, console: Console) -> None:
    """Print what members say on labelled data.

    Args:
        found: what to print.
        console: where to.
    """
    _print(assessment_sections(found), console)


def print_diagnosis(found: Diagnosis, console: Console, *, verbose: bool = False) -> None:
    """Print a diagnosis: figures, gaps; layers and formulas where all is asked for.

    Args:
        found: what to print.
        console: where to.
        verbose: layers, formulas, sources and caveats as well.
    """
    _print(diagnosis_sections(found, full=verbose), console)


def print_compared_diagnoses(
    found: tuple[Diagnosis, Diagnosis], names: tuple[str, str], console: Console
) -> None:
    """Print two diagnoses side by side.

    Args:
        found: the two.
        names: what they are called.
        console: where to.
    """
    _print(comparison_sections(found, names), console)


def _print(sections: list[Section], console: Console) -> None:
    for section in sections:
        console.print()
        console.print(_text(section.title, style="bold red" if section.failed else "bold"))
        if section.facts:
            _indent(_pairs(section.facts), console)
        if section.columns and section.rows:
            if section.facts:
                console.print()
            _indent(_table(section, console), console)
            if section.lines:
                console.print()
        for title, text in section.groups:
            _indent(_text(title, style="yellow"), console)
            _indent(_pairs(text), console, by=4)
        for line in section.lines:
            _indent(_bullet(line), console)


def _indent(item: Text | Table, console: Console, by: int = 2) -> None:
    console.print(Padding(item, (0, 0, 0, by), expand=False), highlight=False)


def _pairs(pairs: tuple[tuple[str, str], ...]) -> Table:
    """Labels in a narrow column, texts wrapped beside them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(_text(label), _text(text))
    return grid


def _bullet(line: str) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text("-", style="dim"), _text(line))
    return grid


def _table(section: Section, console: Console) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        header_style="dim",
        padding=(0, 1, 0, 0),
    )
    for title in section.columns:
        right = title.startswith(">")
        table.add_column(
            _text(title.lstrip(">")),
            justify="right" if right else "left",
            overflow="fold",
            vertical="top",
        )
    for row in section.rows:
        table.add_row(*(_cell(cell, console) for cell in row))
    return table


def _cell(cell: Cell, console: Console) -> Text:
    if isinstance(cell, Verdict):
        return Text(cell.word, "green" if cell.passed else "bold red")
    if isinstance(cell, Share) and console.width < WIDE:
        return Text(f"{percent(cell.value):>7}")
    if isinstance(cell, Share):
        block = "\N{FULL BLOCK}" if console.encoding.lower().startswith("utf") else "#"
        length = round(BAR * cell.value / cell.largest) if cell.largest > 0 else 0
        return Text(f"{percent(cell.value):>7} ").append(block * length, "cyan")
    return _text(cell)


def _text(text: str, style: str = "") -> Text:
    """Text as it is: no markup, and no characters that would steer the terminal."""
    return Text(printable(text, keep="\n"), style)
