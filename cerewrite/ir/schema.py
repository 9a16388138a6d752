"""The JSON schema of ``plan.json``, made from the records themselves.

``make golden`` writes it anew, to ``plan.schema.json`` beside this file.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from cerewrite.ir.results import EXIT_SCALES, SCHEMA, WEIGHT_SOURCES, Plan

PATH = Path(__file__).with_name("plan.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCALARS: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]},
    type(None): {"type": "null"},
}
LIMITS: dict[tuple[str, str], dict[str, Any]] = {
    ("Plan", "objective"): {"enum": ["primal", "dual"]},
    ("Plan", "exit_scale"): {"enum": list(EXIT_SCALES)},
    ("Plan", "weights"): {"enum": list(WEIGHT_SOURCES)},
    ("Plan", "schema"): {"enum": [SCHEMA]},
    ("Split", "multiplicity"): {"type": "integer", "minimum": 1},
    ("Split", "widths"): {"type": "array", "items": {"type": "integer", "minimum": 1}},
}
"""What the values of some fields must be besides; `cerewrite.planning` refuses the others too."""


def json_schema(record: type) -> dict[str, Any]:
    """The schema of a frozen record as `cerewrite.ir.dumps` writes it.

    Every object may carry a ``note``; a field with a default may be left out; no other field
    is known. Descriptions are the records' own, with their double backquotes.

    Args:
        record: a dataclass of `cerewrite.ir`.

    Example:
        >>> from cerewrite.ir import Budget
        >>> json_schema(Budget)["$defs"]["Budget"]["required"]
        ['cost', 'limit', 'text']
    """
    found: dict[str, Any] = {}
    _define(record, found)
    name = record.__name__
    return {"$schema": DIALECT, "title": name, "$ref": f"#/$defs/{name}", "$defs": found}


def _define(record: Any, found: dict[str, Any]) -> None:
    if record.__name__ in found:
        return
    hints = typing.get_type_hints(record)
    fields = dataclasses.fields(record)
    properties: dict[str, Any] = {"$schema": {"type": "string"}, "note": {"type": "string"}}
    found[record.__name__] = {
        "type": "object",
        "description": (record.__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        "additionalProperties": False,
    }
    texts = descriptions(record.__doc__ or "")
    for field in fields:
        kind = _kind(hints[field.name], found) | LIMITS.get((record.__name__, field.name), {})
        text = texts.get(field.name)
        properties[field.name] = kind if text is None else {"description": text, **kind}


def descriptions(docstring: str) -> dict[str, str]:
    """What the ``Attributes`` section of a docstring says of every field.

    Example:
        >>> descriptions(str(Plan.__doc__))["objective"]
        '``primal`` or ``dual``.'
    """
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 8:
            before, _, text = line.strip().partition(": ")
            names = before.split(", ")
            found |= dict.fromkeys(names, text)
        elif indent == 12:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


def _kind(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return {"type": "array", "items": _kind(arguments[0], found)}
    if origin is tuple:
        items = [_kind(item, found) for item in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_kind(item, found) for item in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if dataclasses.is_dataclass(kind):
        _define(kind, found)
        return {"$ref": f"#/$defs/{typing.cast(type, kind).__name__}"}
    return SCALARS[kind]


def schema_text() -> str:
    """The plan's schema as text, with a final newline."""
    return json.dumps(json_schema(Plan), indent=2) + "\n"
