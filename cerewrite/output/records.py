"""``plan.json`` and ``report.json``: records of `cerewrite.ir`, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from cerewrite import ir
from cerewrite.runtime.reading import read_text

R = TypeVar("R", ir.Plan, ir.Analysis, ir.Report, ir.StepProfile)


def read_record(kind: type[R], path: Path) -> R:
    """Read a plan, an analysis or a report back.

    Raises:
        OutputError: if the file cannot be read.
        PlanError: if it is no such record, or was written by a newer version; the message names
            the field.
    """
    return ir.loads(kind, read_text(path), source=str(path))
