"""A report, and the conversion that carries one, in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cerewrite import ir
from cerewrite.ir.shown import VIEWS
from cerewrite.reporter.analysed import headline
from cerewrite.reporter.content import alarmed, at_plan
from cerewrite.reporter.planned import before_and_after, splits
from cerewrite.reporter.proved import checks, promised
from cerewrite.reporter.section import Section
from cerewrite.reporter.tree import module_rows
from cerewrite.reporter.views.base import RecordView, register


@register
class ReportView(RecordView[ir.Report]):
    """What changed, what was promised and proved; one row a module; the plan's picture."""

    name = "Report"

    def sections(self, record: ir.Report) -> Sequence[Section]:
        """See `RecordView.sections`."""
        record = at_plan(record)
        plan, lines = record.plan, alarmed(record)
        found = [Section("Read this first", lines=lines, failed=True)] if lines else []
        if plan is None:
            return *found, headline(record.analysis)
        found += [before_and_after(plan, record.analysis), *promised(record)]
        found.append(splits(plan, record.analysis, full=False))
        return *found, *([checks(record.verification)] if record.verification else [])

    def columns(self, record: ir.Report) -> Mapping[str, Sequence[object]]:
        """The rows of the page's tree, before and after."""
        record = at_plan(record)
        rows = module_rows(record.analysis, record.plan)
        columns: dict[str, Sequence[object]] = {
            "module": [row.name for row in rows],
            "class": [row.kind for row in rows],
        }
        for part in ("shape", "members", "params", "flops", "nanoseconds"):
            pairs = [getattr(row, part) or (None, None) for row in rows]
            columns |= {f"{part}_before": [a for a, _ in pairs], part: [b for _, b in pairs]}
        columns["share"] = [row.share for row in rows]
        columns["region"] = [row.region or None for row in rows]
        columns["refused"] = [", ".join(item.code for item in row.refused) for row in rows]
        return columns

    def draw(self, record: ir.Report, axes: Any) -> None:
        """As its plan is drawn, or its analysis."""
        VIEWS["Plan" if record.plan else "Analysis"].plot(record.plan or record.analysis, axes)


class _Reported(Protocol):
    """What carries a report: `cerewrite.Conversion`."""

    report: ir.Report


@register
class ConversionView(RecordView[_Reported]):
    """As its report is shown."""

    name = "Conversion"

    def sections(self, record: _Reported) -> Sequence[Section]:
        """See `RecordView.sections`."""
        return ReportView().sections(record.report)

    def columns(self, record: _Reported) -> Mapping[str, Sequence[object]]:
        """See `ReportView.columns`."""
        return ReportView().columns(record.report)

    def draw(self, record: _Reported, axes: Any) -> None:
        """See `ReportView.draw`."""
        ReportView().draw(record.report, axes)
