"""The JSON schema of ``plan.json``, made from the records themselves.

``make golden`` writes it anew, to ``plan.schema.json`` beside this file.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from cerewrite import ir
from cerewrite.ir.flat import is_flat
from cerewrite.ir.results import Plan
from cerewrite.ir.serial import NOT_FINITE, extended_fields

Schema = dict[str, Any]
"""A JSON object that says what another must be."""

PATH = Path(__file__).with_name("plan.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(record: Any) -> Schema:
    """The schema of a frozen record as `cerewrite.ir.dumps` writes it.

    Types and ranges are those that files are decoded by. Every object may carry a ``note``; a
    field with a default may be left out; no other field is known. Descriptions are the records'
    own, with their double backquotes.

    Args:
        record: a dataclass, ``tuple[it, ...]``, which is written as an array, or ``A | B``.

    Example:
        >>> from cerewrite.ir import Budget
        >>> json_schema(Budget)["$defs"]["Budget"]["required"]
        ['cost', 'limit', 'text']
    """
    if isinstance(record, types.UnionType):
        ways = [json_schema(one) for one in typing.get_args(record)]
        parts = {name: rule for way in ways for name, rule in way["$defs"].items()}
        either = [{"$ref": way["$ref"]} for way in ways]
        return {"$schema": DIALECT, "title": ways[0]["title"], "anyOf": either, "$defs": parts}
    made = msgspec.json.schema(record)
    rules = made.pop("$defs")
    one = next(iter(typing.get_args(record)), record)
    kinds = {name: _record(name, one) for name in rules}
    parts = {name: _object(name, rules, kinds) for name in rules if not is_flat(kinds[name])}
    return {"$schema": DIALECT, "title": one.__name__, **made, "$defs": parts}


def _record(name: str, user: type) -> type:
    """The record that a definition is of; ``Measures_float_`` is that of ``Measures[float]``.

    It is looked for beside the record that uses it, then among those of `cerewrite.ir`.
    """
    name = name.partition("_")[0]
    found: type = getattr(sys.modules[user.__module__], name, None) or getattr(ir, name)
    return found


def _object(name: str, rules: dict[str, Any], kinds: dict[str, type]) -> dict[str, Any]:
    """One record's rule, with its fields described."""
    properties: dict[str, Any] = {"$schema": {"type": "string"}, "note": {"type": "string"}}
    required: list[str] = []
    _describe(name, rules, kinds, properties, required)
    return {
        "type": "object",
        "description": (kinds[name].__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _describe(
    name: str,
    rules: dict[str, Any],
    kinds: dict[str, type],
    properties: dict[str, Any],
    required: list[str],
) -> None:
    """Add a record's fields, those of flat records in their place."""
    texts = descriptions(kinds[name].__doc__ or "")
    for field, kind in rules[name]["properties"].items():
        part = str(kind.get("$ref", "")).rpartition("/")[2]
        if part and is_flat(kinds[part]):
            _describe(part, rules, kinds, properties, required)
            continue
        kind = _field(field, {key: value for key, value in kind.items() if key != "default"})
        properties[field] = {"description": texts[field], **kind} if field in texts else kind
        required += [field] if field in rules[name]["required"] else []


def _field(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    if "enum" in kind:
        return {"enum": kind["enum"]}
    if "$ref" in kind:
        return kind
    if name in extended_fields() and "type" in kind:
        return {"anyOf": [kind, {"enum": list(NOT_FINITE)}]}
    if name in extended_fields():
        return {"anyOf": [*kind["anyOf"], {"enum": list(NOT_FINITE)}]}
    return kind


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


def schema_text() -> str:
    """The plan's schema as text, with a final newline."""
    return json.dumps(json_schema(Plan), indent=2) + "\n"
