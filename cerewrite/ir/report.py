"""Reports: everything that one run found out."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.exported import Export
from cerewrite.ir.outcomes import Promise, Verification
from cerewrite.ir.ranges import Amount, Text
from cerewrite.ir.results import SCHEMA, Analysis, Figures, Plan, Schema
from cerewrite.ir.shown import Shown
from cerewrite.ir.timing import Forecast, Timing


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another plan for the same model, built and timed beside the first.

    Attributes:
        what: what is different about it.
        planned: its figures.
        timings: its speed against the original's.
    """

    what: Text
    planned: Figures
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class Report(Shown):
    """Everything that one run found out."""

    analysis: Analysis
    plan: Plan | None = None
    verification: Verification | None = None
    export: Export | None = None
    renamed: tuple[tuple[Text, Text], ...] = ()
    seconds: tuple[tuple[Text, Amount], ...] = ()
    versions: tuple[tuple[Text, Text], ...] = ()
    schema: Schema = SCHEMA
    timings: tuple[Timing, ...] = ()
    alternative: Alternative | None = None
    forecast: Forecast | None = None
    promise: Promise | None = None

    def __repr__(self) -> str:
        """What it reports on, on one line; `dumps` writes it whole."""
        stages = ("plan", "verification", "export", "timings", "promise")
        held = [name for name in stages if getattr(self, name)]
        return f"Report({self.analysis.model}: {', '.join(['analysis', *held])})"
