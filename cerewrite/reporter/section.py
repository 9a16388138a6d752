"""The parts of a report, before anyone decides how they look."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 12
"""Rows of a long table that are shown unless everything is asked for."""


@dataclass(frozen=True, slots=True)
class Share:
    """A cell that is a part of a whole, in [0, 1]; ``largest`` is the longest bar's."""

    value: float
    largest: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cell that says whether something holds."""

    passed: bool

    @property
    def word(self) -> str:
        """The verdict in one word."""
        return "pass" if self.passed else "FAIL"


Cell = str | Share | Verdict


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        facts: label and text, one line each.
        columns: headings of its table; one that starts with ``>`` is aligned right.
        rows: cells of its table.
        lines: sentences below the table.
        groups: headings, each with its label and text lines.
        failed: whether it tells of a failure.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    lines: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    failed: bool = False
