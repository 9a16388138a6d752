"""What is known so far: one record per model, kept in a JSON file that a run picks up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FORMAT = 1
"""Goes up when a record's fields change."""

Record = dict[str, Any]


def code_version() -> str:
    """SHA-256 of the product's source files, 12 digits: records of other code are made anew."""
    digest = hashlib.sha256()
    for folder in ("cerewrite", "passes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class Store:
    """Records by part (``models``, ``onnx``) and name; every change is on disk at once.

    Args:
        path: the JSON file.
        code: version of the code that runs now.
    """

    def __init__(self, path: Path, code: str) -> None:
        self.path = path
        self.code = code
        self.parts: dict[str, dict[str, Record]] = {"models": {}, "onnx": {}}
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            if held.get("format") == FORMAT:
                self.parts |= held["parts"]

    def has(self, part: str, name: str, *, any_code: bool) -> bool:
        """Whether a model has been done, by this code or by any."""
        record = self.parts[part].get(name)
        return record is not None and (any_code or record["code"] == self.code)

    def put(self, part: str, record: Record) -> None:
        """Keep a record and write the file, whole or not at all."""
        self.parts[part][record["name"]] = record | {"code": self.code}
        parts = {part: dict(sorted(records.items())) for part, records in self.parts.items()}
        lines = json.dumps({"format": FORMAT, "parts": parts}, indent=1, sort_keys=True)
        draft = self.path.with_suffix(".json.tmp")
        draft.write_text(lines + "\n", encoding="utf-8")
        os.replace(draft, self.path)
