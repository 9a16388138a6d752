"""JSON for the frozen records: field names as in Python, unknown fields refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

from cerewrite.errors import PlanError
from cerewrite.registry import suggest

R = TypeVar("R")

EXTRA = ("note", "$schema")
"""Fields that any object may carry besides its own; they are not read."""


def encode(value: Any) -> Any:
    """A record as plain dicts, lists and scalars; not-finite floats become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: encode(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def dumps(record: Any) -> str:
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
    decoded: R = _decode(record_type, data, source)
    return decoded


def _decode(kind: Any, data: Any, where: str) -> Any:
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


def _decode_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
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


def _decode_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
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


def _decode_record(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _mismatch(where, f"an object ({kind.__name__})", data)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in data:
        if name not in fields and name not in EXTRA:
            raise PlanError(f"{where}: unknown field '{name}'", advice=suggest(name, fields))
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING:
            raise PlanError(f"{where}: field '{name}' is missing", advice="write the file again")
    return kind(**values)


def _decode_scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float:
        if data in ("inf", "-inf", "nan"):
            return float(data)
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
    elif isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise _mismatch(where, f"{kind.__name__}", data)


def _mismatch(where: str, wanted: str, got: Any) -> PlanError:
    return PlanError(
        f"{where}: expected {wanted}, found {json.dumps(got)[:60]}",
        advice="mend the field or write the file again",
    )
