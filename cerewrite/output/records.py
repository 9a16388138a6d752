"""``plan.json`` and ``report.json``: records of `cerewrite.ir`, checked as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from cerewrite import ir
from cerewrite.errors import OutputError, PlanError

R = TypeVar("R", ir.Plan, ir.Analysis, ir.Report, ir.StepProfile)


def read_record(kind: type[R], path: Path) -> R:
    """Read a plan, an analysis or a report back.

    Raises:
        OutputError: if the file cannot be read.
        PlanError: if it is no such record, or was written by a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise OutputError(
            f"{path}: cannot be read: {reason}", advice="check the path, or write the file again"
        ) from None
    _require_schema(text, path)
    return ir.loads(kind, text, source=str(path))


def _require_schema(text: str, path: Path) -> None:
    """A newer record has fields unknown here; say so rather than complain about one of them."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > ir.SCHEMA:
        raise PlanError(
            f"{path}: has schema {schema}, this version reads up to {ir.SCHEMA}",
            advice="upgrade cerewrite, or write the file again with this version",
        )
