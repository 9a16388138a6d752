"""Records whose fields stand, in JSON, among those of the record that holds them."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any


def is_flat(kind: object) -> bool:
    """Whether a class says so: ``FLAT``."""
    return bool(getattr(typing.get_origin(kind) or kind, "FLAT", False))


@functools.cache
def field_types(kind: Any) -> dict[str, Any]:
    """The type of every field of a record, with type variables replaced."""
    record = typing.get_origin(kind) or kind
    hints = typing.get_type_hints(record, include_extras=True)
    known = dict(zip(getattr(record, "__parameters__", ()), typing.get_args(kind), strict=False))
    return {f.name: known.get(hints[f.name], hints[f.name]) for f in dataclasses.fields(record)}


@functools.cache
def json_fields(kind: Any) -> dict[str, Any]:
    """The type of every field of a record's JSON object, those of flat records in their place.

    Example:
        >>> from cerewrite.ir import Split
        >>> list(json_fields(Split))[:3]
        ['region', 'multiplicity', 'widths']
    """
    fields: dict[str, Any] = {}
    for name, hint in field_types(kind).items():
        fields |= json_fields(hint) if is_flat(hint) else {name: hint}
    return fields


def nested(kind: Any, data: Any) -> Any:
    """The plain data of a record's JSON object with flat records as objects of their own."""
    if isinstance(data, dict) and dataclasses.is_dataclass(typing.get_origin(kind) or kind):
        rest = dict(data)
        for name, hint in field_types(kind).items():
            if is_flat(hint):
                rest[name] = {key: rest.pop(key) for key in json_fields(hint) if key in rest}
            elif name in rest:
                rest[name] = nested(hint, rest[name])
        return rest
    if isinstance(data, list | tuple):
        kinds = typing.get_args(kind)
        inner = kinds[0] if kinds else None
        return [nested(inner, item) for item in data]
    if isinstance(data, dict):  # an optional record
        for inner in typing.get_args(kind):
            data = nested(inner, data) if inner is not type(None) else data
    return data
