"""What each figure is worth: one packaged table, written by ``python -m benchmarks.referee``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from cerewrite.ir.diagnosed import Worth

TABLE = Path(__file__).with_name("worth.json")


@functools.cache
def _table() -> dict[str, tuple[Worth, ...]]:
    stored = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: tuple(Worth(**row) for row in rows) for name, rows in stored.items()}


def worth_of(diagnostic: str) -> tuple[Worth, ...]:
    """How a diagnostic's figures order the designs that were trained (docs/REFEREE.md).

    Args:
        diagnostic: registered name.

    Returns:
        One record per figure and outcome; none for a diagnostic that was not refereed.

    Example:
        >>> worth_of("no such diagnostic")
        ()
    """
    return _table().get(diagnostic, ())
