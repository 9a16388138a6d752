"""A verification in a notebook: every check with its figure and its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from cerewrite import ir
from cerewrite.errors import UsageError
from cerewrite.reporter.proved import checks
from cerewrite.reporter.section import Section
from cerewrite.reporter.views.base import RecordView, draw_bars, register


@register
class VerificationView(RecordView[ir.Verification]):
    """The table of checks; one row a check; figures over their limits."""

    name = "Verification"

    def sections(self, record: ir.Verification) -> Sequence[Section]:
        """See `RecordView.sections`."""
        return (checks(record),)

    def columns(self, record: ir.Verification) -> Mapping[str, Sequence[object]]:
        """Every field of `cerewrite.ir.Check`."""
        names = [field.name for field in fields(ir.Check)]
        return {name: [getattr(check, name) for check in record.checks] for name in names}

    def draw(self, record: ir.Verification, axes: Any) -> None:
        """One bar a check that has both.

        Raises:
            UsageError: if none has.
        """
        limits = [(c.name, c.value / c.limit) for c in record.checks if c.value and c.limit]
        if not limits:
            raise UsageError("no check has a figure and a limit", advice="see to_frame()")
        draw_bars(axes, [name for name, _ in limits], [over for _, over in limits])
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("figure over its limit")
