"""JSON for the frozen records: decoded by msgspec after what their annotations declare.

Field names are as in Python; any object may carry a comment besides. What msgspec does not see
is looked at here: fields given twice, fields that nobody knows, numbers and nesting beyond reason.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import math
import re
import typing
from collections import Counter
from typing import Any, TypeVar

import msgspec

from cerewrite.errors import PlanError, printable
from cerewrite.ir.crosschecks import check_parts, holds_records, known_fields
from cerewrite.ir.flat import field_types, is_flat, json_fields, nested
from cerewrite.ir.ranges import PATTERNS
from cerewrite.registry import suggest

R = TypeVar("R")

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
"""What `json.loads` returns."""

EXTRA = {"note", "$schema"}
"""Fields that any object may carry besides its own; they are not read."""

DEEPEST = 32
"""Levels that JSON may be nested; a report has 9."""

DIGITS = 20
"""Digits of a whole number that are read as such; with more it is only a large one."""

NOT_FINITE = ("inf", "-inf", "nan")
AGAIN = "mend the field or write the file again"
_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]')
_PARTS = re.compile(r"\.[\w$]+|\[[^]]*\]|\.\.\.")
_WHERE = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<where>.*)`)?", re.DOTALL)


def encode(value: Any, *, key: str = "") -> Any:
    """A record as plain dicts, lists and scalars.

    Floats that are not finite become words, control characters in texts are written out, and the
    fields of flat records (`cerewrite.ir.flat`) stand in the place of the field that holds them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            encoded = encode(part, key=field.name)
            data |= encoded if is_flat(type(part)) else {field.name: encoded}
        return data
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return printable(value, keep="\t\n" if key == "note" else "")
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
        PlanError: if the text is no JSON, or a field is missing, unknown, given twice, of a wrong
            type or out of its range; the message names it.
    """
    return decode(record_type, parse(text, source), source=source)


def decode(record_type: type[R], data: Any, *, source: str) -> R:
    """A record from plain dicts, lists and scalars; see `loads`.

    Raises:
        PlanError: see `loads`.
    """
    _require_schema(record_type, data, source)
    _refuse_unknown(record_type, data, source)
    try:
        record = msgspec.convert(nested(record_type, data), record_type)
    except msgspec.ValidationError as error:
        raise _violation(str(error), data, source) from None
    except UnicodeEncodeError:
        raise PlanError(
            f"{_half_character(data, source)}: holds half a character", advice=AGAIN
        ) from None
    check_parts(record, source)
    return record


def validate(record: R, source: str) -> R:
    """The record if it is one that could be read back: made in Python, it may hold anything.

    Raises:
        PlanError: see `loads`.
    """
    return decode(type(record), _flattened(record), source=source)


def _flattened(value: Any) -> Any:
    """A record as plain data, with its values as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            plain = _flattened(part)
            data |= plain if is_flat(type(part)) else {field.name: plain}
        return data
    return [_flattened(item) for item in value] if isinstance(value, tuple | list) else value


def parse(text: str, source: str) -> Any:
    """JSON text as plain data.

    Raises:
        PlanError: if it is no JSON, is nested more than 32 deep, or names a field twice.
    """
    extended = extended_fields()

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(found)
        if len(data) < len(found):
            counts = Counter(name for name, _ in found)
            twice = printable(counts.most_common(1)[0][0][:60])
            raise PlanError(f"{source}: field '{twice}' is given twice", advice="keep one of them")
        for name in extended.intersection(data):
            if data[name] in NOT_FINITE:
                data[name] = float(data[name])
        return data

    def constant(name: str) -> Any:
        raise PlanError(f"{source}: {name} is no number of JSON", advice=AGAIN)

    def whole(digits: str) -> float:
        return int(digits) if len(digits) <= DIGITS else float(digits)

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=whole)
    except json.JSONDecodeError as error:
        raise PlanError(
            f"{source}: not JSON: {error}", advice="restore the file or write it again"
        ) from None
    except RecursionError:
        raise _too_deep(text, source) from None


def _too_deep(text: str, source: str) -> PlanError:
    """The refusal of JSON that Python cannot unfold, with the field at which it is too deep."""
    depth, last = 0, ""
    for match in _PIECES.finditer(text):
        piece = match.group()
        if piece[0] == '"':
            last = piece
        else:
            depth += 1 if piece in "[{" else -1
        if depth > DEEPEST:
            break
    name = printable(last[1:60].rstrip('"'))
    return PlanError(
        f"{source}: nested more than {DEEPEST} deep, at or after '{name}'",
        advice="restore the file or write it again",
    )


def _require_schema(record_type: type, data: Any, source: str) -> None:
    """A newer record has fields unknown here; say so rather than complain about one of them."""
    known = next((f.default for f in dataclasses.fields(record_type) if f.name == "schema"), None)
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(known, int) and isinstance(schema, int) and schema > known:
        raise PlanError(
            f"{source}: has schema {schema}, this version reads up to {known}",
            advice="upgrade cerewrite, or write the file again with this version",
        )


@functools.cache
def extended_fields() -> frozenset[str]:
    """Names of the fields of records that hold any number, finite or not."""
    from cerewrite import ir

    kinds = [kind for kind in vars(ir).values() if isinstance(kind, type)]
    return frozenset(
        name
        for kind in kinds
        if dataclasses.is_dataclass(kind)
        for name, hint in json_fields(kind).items()
        if "extended" in str(hint)
    )


@functools.cache
def flat_names() -> frozenset[str]:
    """Names of the fields that hold flat records, which JSON does not show."""
    from cerewrite import ir

    kinds: list[Any] = [kind for kind in vars(ir).values() if dataclasses.is_dataclass(kind)]
    pairs = [pair for kind in kinds for pair in field_types(kind).items()]
    return frozenset(name for name, hint in pairs if is_flat(hint))


def _refuse_unknown(kind: Any, data: Any, where: str) -> None:
    """Refuse fields that no record has, before one that was misspelt is called missing."""
    if isinstance(data, dict) and dataclasses.is_dataclass(typing.get_origin(kind) or kind):
        names = known_fields(kind)
        for name in data.keys() - names.keys() - EXTRA:
            shown = printable(name[:60])
            raise PlanError(
                f"{where}: unknown field '{shown}'", advice=suggest(shown, dict.fromkeys(names))
            )
        for name, inner in names.items():
            if inner is not None and name in data:
                _refuse_unknown(inner, data[name], f"{where}.{name}")
    elif isinstance(data, dict):
        for inner in typing.get_args(kind):
            _refuse_unknown(inner, data, where)
    elif isinstance(data, list | tuple):
        for inner in filter(holds_records, typing.get_args(kind)):
            for index, item in enumerate(data):
                _refuse_unknown(inner, item, f"{where}[{index}]")


def _half_character(data: Any, source: str) -> str:
    """Where the first text is that is no Unicode: half of a pair of surrogates."""
    waiting = [(source, data)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item):
            return where
        if isinstance(item, dict):
            waiting += [(f"{where}.{printable(key)}", value) for key, value in item.items()]
        elif isinstance(item, list | tuple):
            waiting += [(f"{where}[{index}]", value) for index, value in enumerate(item)]
    return source


def _shown(data: Any) -> str:
    """What was found, for a message; what holds other values is only named."""
    if isinstance(data, dict | list | tuple):
        return f"{'an object' if isinstance(data, dict) else 'a list'} of {len(data)}"
    return json.dumps(data)[:60]


def _violation(text: str, data: Any, source: str) -> PlanError:
    """The error for a violation that msgspec found, with the field and what it holds."""
    match = _WHERE.fullmatch(text)
    assert match is not None, text
    problem, where = match["problem"], match["where"] or ""
    where = "".join(part for part in _PARTS.findall(where) if part[1:] not in flat_names())
    missing = re.search(r"missing required field `(\w+)`", problem)
    if missing is not None:
        return PlanError(
            f"{source}{where}: field '{missing[1]}' is missing", advice="write the file again"
        )
    problem, _, _ = problem.partition(", got ")
    _, _, pattern = problem.partition("matching regex ")
    if pattern:
        problem = f"expected {PATTERNS[ast.literal_eval(pattern)]}"
    found = data
    for name, index in re.findall(r"\.([\w$]+)|\[(\d+)\]", where):
        found = found[name] if name else found[int(index)]
    problem = problem[:1].lower() + problem[1:].replace("`", "")
    problem = problem.replace("expected object", "expected an object")
    problem = problem.replace("expected array", "expected a list")
    return PlanError(f"{source}{where}: {problem}, found {_shown(found)}", advice=AGAIN)
