"""Records with other values under their JSON keys, possible or not."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from cerewrite.ir.flat import field_types, is_flat, json_fields

R = TypeVar("R")


def edited(record: R, **changes: Any) -> R:
    """The record with other values under some of its JSON keys; nothing is checked."""
    kinds = field_types(type(record))
    assert changes.keys() <= json_fields(type(record)).keys()
    values = {name: changes[name] for name in changes.keys() & kinds.keys()}
    for name, kind in kinds.items():
        own = changes.keys() & json_fields(kind).keys() if is_flat(kind) else ()
        if own:
            parts = {key: changes[key] for key in own}
            values[name] = dataclasses.replace(getattr(record, name), **parts)
    return dataclasses.replace(record, **values)  # type: ignore[type-var]
