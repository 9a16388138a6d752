"""JSON for the frozen records: field names as in Python, unknown fields refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from cerewrite.errors import PlanError
from cerewrite.registry import suggest

R = TypeVar("R")

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
"""What `json.loads` returns."""

EXTRA = ("note", "$schema")
"""Fields that any object may carry besides its own; they are not read."""


def encode(value: object) -> JSON:
    """A record as plain dicts, lists and scalars; not-finite floats become strings.

    A value whose class says ``FLAT`` puts its own fields in the place of the field that holds it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data: dict[str, JSON] = {}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            encoded = encode(part)
            if isinstance(encoded, dict) and is_flat(type(part)):
                data |= encoded
            else:
                data[field.name] = encoded
        return data
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return typing.cast(JSON, value)


def is_flat(kind: object) -> bool:
    """Whether a record's fields stand among those of the record that holds it."""
    return bool(getattr(typing.get_origin(kind) or kind, "FLAT", False))


@cache
def field_types(kind: Any) -> dict[str, Any]:
    """The type of every field of a record, type variables replaced."""
    record = typing.get_origin(kind) or kind
    hints = typing.get_type_hints(record)
    known = dict(zip(getattr(record, "__parameters__", ()), typing.get_args(kind), strict=False))
    return {f.name: known.get(hints[f.name], hints[f.name]) for f in dataclasses.fields(record)}


def dumps(record: object) -> str:
    """A record as JSON text: stable order, two-space indent, a final newline."""
    return json.dumps(encode(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(record_type: type[R], text: str, *, source: str) -> R:
    """Read a record back from JSON text.

    Args:
        record_type: the dataclass to build.
        text: JSON text.
        source: what to call the text in messages (a file name).

    Raises:
        PlanError: if the text is no JSON, or a field is missing, unknown or of a wrong type.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(
            f"{source}: not JSON: {error}", advice="restore the file or write it again"
        ) from None
    return typing.cast(R, _decode(record_type, data, source))


def _decode(kind: Any, data: JSON, where: str) -> object:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data, where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, where)
    if origin is typing.Literal:
        if data not in typing.get_args(kind):
            raise _mismatch(where, f"one of {typing.get_args(kind)}", data)
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, data, where)
    return _decode_scalar(kind, data, where)


def _decode_union(kinds: tuple[Any, ...], data: JSON, where: str) -> object:
    if data is None and type(None) in kinds:
        return None
    error: PlanError | None = None
    for kind in kinds:
        if kind is not type(None):
            try:
                return _decode(kind, data, where)
            except PlanError as caught:
                error = caught
    raise error if error is not None else _mismatch(where, "null", data)


def _decode_tuple(kinds: tuple[Any, ...], data: JSON, where: str) -> object:
    if not isinstance(data, list):
        raise _mismatch(where, "a list", data)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise _mismatch(where, f"{len(kinds)} items", data)
    return tuple(
        _decode(kind, item, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _decode_record(kind: Any, data: JSON, where: str) -> object:
    if not isinstance(data, dict):
        raise _mismatch(where, f"an object ({kind.__name__})", data)
    known = dict.fromkeys(_keys(kind))
    for name in data:
        if name not in known and name not in EXTRA:
            raise PlanError(f"{where}: unknown field '{name}'", advice=suggest(name, known))
    return _build(kind, data, where)


def _keys(kind: Any) -> Iterator[str]:
    """The keys of a record's JSON object."""
    for name, hint in field_types(kind).items():
        yield from _keys(hint) if is_flat(hint) else (name,)


def _build(kind: Any, data: Mapping[str, JSON], where: str) -> object:
    record, hints, values = typing.get_origin(kind) or kind, field_types(kind), {}
    for field in dataclasses.fields(record):
        name, hint = field.name, hints[field.name]
        if is_flat(hint):
            values[name] = _build(hint, data, where)
        elif name in data:
            values[name] = _decode(hint, data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING:
            raise PlanError(f"{where}: field '{name}' is missing", advice="write the file again")
    return record(**values)


def _decode_scalar(kind: Any, data: JSON, where: str) -> object:
    if kind is float:
        if data in ("inf", "-inf", "nan"):
            return float(data)
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
    elif isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise _mismatch(where, f"{kind.__name__}", data)


def _mismatch(where: str, wanted: str, got: JSON) -> PlanError:
    return PlanError(
        f"{where}: expected {wanted}, found {json.dumps(got)[:60]}",
        advice="mend the field or write the file again",
    )
