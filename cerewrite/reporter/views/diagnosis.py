"""A diagnosis in a notebook: figures with what they are worth, and gaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.reporter.diagnosed import diagnosis_sections
from cerewrite.reporter.section import Section
from cerewrite.reporter.views.base import RecordView, draw_bars, register


@register
class DiagnosisView(RecordView[Diagnosis]):
    """The table of figures; one row a figure, and one a figure and layer; every figure as a bar."""

    name = "Diagnosis"

    def sections(self, record: Diagnosis) -> Sequence[Section]:
        """See `RecordView.sections`."""
        return diagnosis_sections(record, full=False)

    def columns(self, record: Diagnosis) -> Mapping[str, Sequence[object]]:
        """Diagnostic, figure, layer ("" for the model), value and standard error."""
        rows = [
            (finding.diagnostic, figure.name, *one)
            for finding in record.findings
            for figure in finding.figures
            for one in [
                ("", figure.value, figure.error),
                *((item.layer, item.value, item.error) for item in figure.layers),
            ]
        ]
        names = ("diagnostic", "figure", "layer", "value", "error")
        return {name: [row[index] for row in rows] for index, name in enumerate(names)}

    def draw(self, record: Diagnosis, axes: Any) -> None:
        """Finite figures of the model, on an axis that is linear near 0 and logarithmic beyond."""
        figures = [
            (f"{finding.diagnostic}: {figure.name}", figure.value)
            for finding in record.findings
            for figure in finding.figures
            if math.isfinite(figure.value)
        ]
        draw_bars(axes, [name for name, _ in figures], [value for _, value in figures])
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_title(record.model)
