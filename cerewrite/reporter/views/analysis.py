"""An analysis in a notebook: headline and layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from cerewrite import ir
from cerewrite.reporter.analysed import headline, layers
from cerewrite.reporter.section import Section
from cerewrite.reporter.views.base import RecordView, draw_bars, register


@register
class AnalysisView(RecordView[ir.Analysis]):
    """Headline and the layers that weigh most; one row a layer; each layer's share."""

    name = "Analysis"

    def sections(self, record: ir.Analysis) -> Sequence[Section]:
        """See `RecordView.sections`."""
        return headline(record), layers(record, full=False)

    def columns(self, record: ir.Analysis) -> Mapping[str, Sequence[object]]:
        """Every field of `cerewrite.ir.LayerEstimate`."""
        names = [field.name for field in fields(ir.LayerEstimate)]
        return {name: [getattr(layer, name) for layer in record.layers] for name in names}

    def draw(self, record: ir.Analysis, axes: Any) -> None:
        """One bar a layer, in execution order."""
        shares = [layer.share for layer in record.layers]
        draw_bars(axes, [layer.name for layer in record.layers], shares)
        axes.set_xlabel("share of the variance")
        axes.set_title(record.model)
