"""Records with other values, as someone who edits their JSON sees them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from cerewrite import ir

R = TypeVar("R")


def edited(record: R, **changes: Any) -> R:
    """The record with other values under some of its JSON keys; other records may be values."""
    data = ir.encode(record)
    assert isinstance(data, dict) and changes.keys() <= data.keys()
    text = json.dumps(data | {name: ir.encode(value) for name, value in changes.items()})
    return ir.loads(type(record), text, source="edited")
