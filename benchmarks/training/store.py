"""The results file: one JSON line per record, appended as it comes, safe against a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

KEYS = {
    "design": ("kind", "task", "design"),
    "stack": ("kind", "task", "design", "optimiser", "phase"),
}
"""What identifies a record of each kind; a later one replaces an earlier one."""


def identity(record: Record) -> tuple[Any, ...]:
    """What a record is about."""
    return tuple(record[key] for key in KEYS[record["kind"]])


class Store:
    """Records in a JSON-lines file.

    Args:
        path: the file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[tuple[Any, ...], Record] = {}
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            whole, torn = lines[:-1], lines[-1]
            self.records = {identity(r): r for r in map(json.loads, filter(None, whole))}
            if torn:  # a killed run may leave half a line: it is measured again
                path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def get(self, **key: Any) -> Record | None:
        """The record of that identity, if there is one."""
        return self.records.get(tuple(key[name] for name in KEYS[key["kind"]]))

    def add(self, record: Record) -> None:
        """Append a record, unless the very same one is there."""
        record = json.loads(json.dumps(_tidy(record)))
        if self.records.get(identity(record)) == record:
            return
        self.records[identity(record)] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def of(self, kind: str) -> list[Record]:
        """All records of one kind, in order."""
        return [record for record in self.records.values() if record["kind"] == kind]

    def compact(self, keep: Iterable[tuple[Any, ...]] | None = None) -> None:
        """Rewrite the file without replaced records (and without those not in ``keep``)."""
        if keep is not None:
            wanted = set(keep)
            self.records = {k: r for k, r in self.records.items() if k in wanted}
        lines = [json.dumps(r, separators=(",", ":")) + "\n" for r in self.records.values()]
        self.path.write_text("".join(lines), encoding="utf-8")


def _tidy(value: Any) -> Any:
    """Floats to five digits; those that are not finite as None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    return [_tidy(item) for item in value] if isinstance(value, list | tuple) else value
