"""A plan in a notebook: before and after, and what is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cerewrite import ir
from cerewrite.planning.measures import reported
from cerewrite.reporter.measured import before_of, figure, title
from cerewrite.reporter.planned import before_and_after, menu, splits
from cerewrite.reporter.section import Section
from cerewrite.reporter.views.base import AFTER, BEFORE, RecordView, draw_bars, register


@register
class PlanView(RecordView[ir.Plan]):
    """Figures before and after, the menu, splits; one row a split; the front of plans."""

    name = "Plan"

    def sections(self, record: ir.Plan) -> Sequence[Section]:
        """See `RecordView.sections`."""
        return before_and_after(record), *menu(record), splits(record, full=False)

    def columns(self, record: ir.Plan) -> Mapping[str, Sequence[object]]:
        """Designs, costs and measures of every split, those before where they are known."""
        before = {region.name: region for region in record.regions}
        measured = before_of(record, None)
        old = [before.get(split.region) for split in record.splits]
        columns: dict[str, Sequence[object]] = {
            "region": [split.region for split in record.splits],
            "members_before": [region.multiplicity if region else None for region in old],
            "widths_before": [region.widths if region else None for region in old],
            "members": [split.multiplicity for split in record.splits],
            "widths": [split.widths for split in record.splits],
            "params": [split.params for split in record.splits],
            "flops": [split.flops for split in record.splits],
        }
        for measure in reported():
            firsts = [measured.get(split.region) for split in record.splits]
            columns[f"{measure.field}_before"] = [one and measure.of(one) for one in firsts]
            columns[measure.field] = [measure.of(split.measures) for split in record.splits]
        return columns

    def draw(self, record: ir.Plan, axes: Any) -> None:
        """The menu's front where there is one, else the measure of the model before and after."""
        rows = [row for row in record.menu if not row.refused]
        axes.set_title(record.model)
        if not rows:
            both = (record.baseline.measures, record.planned.measures)
            draw_bars(axes, ["before", "after"], [figure(record, m) for m in both])
            axes.set_xlabel(title(record))
            return
        timed = all(row.step is not None for row in rows)
        for row in rows:
            across = row.step if timed and row.step is not None else row.params
            mark, colour = ("*", AFTER) if row.chosen else ("o", BEFORE)
            axes.scatter(
                [across], [row.measure], s=120 if row.chosen else 40, marker=mark, c=colour
            )
            axes.annotate(
                row.name, (across, row.measure), xytext=(6, 6), textcoords="offset points"
            )
        axes.set_xlabel(f"{'training step' if timed else 'parameters'}, after over before")
        axes.set_ylabel(f"{title(record)}, after over before")
