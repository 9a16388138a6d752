"""The JSON schema of ``plan.json``, made from the records themselves.

``python -m cerewrite.ir.schema`` writes it anew, to ``plan.schema.json`` beside this file.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from cerewrite.ir.results import EXIT_SCALES, SCHEMA, WEIGHT_SOURCES, Plan
from cerewrite.ir.serial import field_types, is_flat

Schema = dict[str, Any]
"""A JSON object that says what another must be."""

PATH = Path(__file__).with_name("plan.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCALARS: dict[Any, Schema] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]},
    type(None): {"type": "null"},
}
LIMITS: dict[tuple[str, str], Schema] = {
    ("Plan", "objective"): {"enum": ["primal", "dual"]},
    ("Plan", "exit_scale"): {"enum": list(EXIT_SCALES)},
    ("Plan", "weights"): {"enum": list(WEIGHT_SOURCES)},
    ("Plan", "schema"): {"enum": [SCHEMA]},
    ("Design", "multiplicity"): {"type": "integer", "minimum": 1},
    ("Design", "widths"): {"type": "array", "items": {"type": "integer", "minimum": 1}},
}
"""What the values of some fields must be besides; `cerewrite.planning` refuses the others too."""


def json_schema(record: type) -> Schema:
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
    defined: Schema = {}
    _define(record, defined)
    name = record.__name__
    return {"$schema": DIALECT, "title": name, "$ref": f"#/$defs/{name}", "$defs": defined}


def _define(record: Any, defined: Schema) -> None:
    if record.__name__ in defined:
        return
    properties: Schema = {"$schema": {"type": "string"}, "note": {"type": "string"}}
    required: list[str] = []
    defined[record.__name__] = {
        "type": "object",
        "description": (record.__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    _describe(record, properties, required, defined)


def _describe(kind: Any, properties: Schema, required: list[str], defined: Schema) -> None:
    """Add a record's fields, those of flat ones in their place."""
    record = typing.get_origin(kind) or kind
    texts, hints = descriptions(record.__doc__ or ""), field_types(kind)
    for field in dataclasses.fields(record):
        name, hint = field.name, hints[field.name]
        if is_flat(hint):
            _describe(hint, properties, required, defined)
            continue
        schema = _kind(hint, defined) | LIMITS.get((record.__name__, name), {})
        properties[name] = {"description": texts[name], **schema} if name in texts else schema
        if field.default is dataclasses.MISSING:
            required.append(name)


def descriptions(docstring: str) -> dict[str, str]:
    """What the ``Attributes`` section of a docstring says of every field.

    Example:
        >>> descriptions(str(Plan.__doc__))["objective"]
        '``primal`` or ``dual``.'
    """
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 8:
            before, _, text = line.strip().partition(": ")
            names = before.split(", ")
            texts |= dict.fromkeys(names, text)
        elif indent == 12:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
        else:
            break
    return texts


def _kind(kind: Any, defined: Schema) -> Schema:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return {"type": "array", "items": _kind(arguments[0], defined)}
    if origin is tuple:
        items = [_kind(item, defined) for item in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_kind(item, defined) for item in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if dataclasses.is_dataclass(kind):
        _define(kind, defined)
        return {"$ref": f"#/$defs/{typing.cast(type, kind).__name__}"}
    return SCALARS[kind]


def schema_text() -> str:
    """The plan's schema as text, with a final newline."""
    return json.dumps(json_schema(Plan), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
