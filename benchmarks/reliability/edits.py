"""Hostile edits of good files: of JSON by field and by character, of bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

TOKENS = {
    "@5000 digits@": "9" * 5000,
    "@10^400@": "1" + "0" * 400,
    "@1e400@": "1e400",
    "@NaN@": "NaN",
    "@-Infinity@": "-Infinity",
    "@deep list@": "[" * 100_000 + "]" * 100_000,
    "@deep object@": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "@surrogate@": '"\\ud800"',
}
"""What Python would not write: raw JSON in the place of a text."""

POOL: tuple[Any, ...] = (
    *(-(2**63), -2, -1, 0, 1, 2, 7, 10**6, 2**31, 2**53, 2**63, 2**64),
    *(-2.0, 0.5, 1e-320, 1e308, -1e308, "inf", "-inf", "nan"),
    *(None, True, False, [], {}, [[]], [0], {"a": 1}, "", "nope", "\u0663", "a" * 10_000),
    *("\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "[bold red]x[/]", "a\nb", "\u202eabc"),
    *("<script>alert(1)</script>", '"><img src=x onerror=x>', '"""\nimport os\n"""', "x'+'y"),
    *("../../../etc/passwd", "/dev/zero", "os:system", "evil.py:run", "${HOME}", "%s%n", "a\0b"),
    *TOKENS,
)


def paths(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside of JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*at, key))


@st.composite
def json_edits(draw: st.DrawFn, good: Any) -> str:
    """JSON text of good data with one to three edits; now and then broken as text too."""
    data = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(paths(data))
        if not ways:
            break
        *above, last = draw(st.sampled_from(ways))
        at = data
        for key in above:
            at = at[key]
        edit = draw(st.sampled_from(["put", "put", "put", "scale", "drop", "copy", "add"]))
        if edit == "put":
            at[last] = draw(st.sampled_from(POOL))
        elif edit == "scale" and isinstance(at[last], int | float):
            at[last] = at[last] * draw(st.sampled_from([-1, 0, 2, 1000, 10**9]))
        elif edit == "drop":
            del at[last]
        elif edit == "copy":
            *_, other = draw(st.sampled_from(ways))
            at[last] = copy.deepcopy(
                at.get(other, [at[last], at[last]]) if isinstance(at, dict) else at
            )
        elif isinstance(at, dict):
            at[draw(st.sampled_from(["note", "schema", "extra", "\x1b[1m", "__class__"]))] = draw(
                st.sampled_from(POOL)
            )
    text = json.dumps(data)
    for token, raw in TOKENS.items():
        text = text.replace(json.dumps(token), raw)
    if draw(st.integers(0, 9)) == 0:
        text = draw(broken_text(text))
    return text


@st.composite
def broken_text(draw: st.DrawFn, text: str) -> str:
    """The text cut, with a piece said twice, or with a character put in."""
    at = draw(st.integers(0, max(len(text) - 1, 0)))
    kind = draw(st.sampled_from(["cut", "twice", "insert", "field twice"]))
    if kind == "cut":
        return text[:at]
    if kind == "twice":
        return text[:at] + text[at // 2 :]
    if kind == "insert":
        return text[:at] + draw(st.characters()) + text[at:]
    return text.replace("{", '{"schema": 1, "schema": 1, ', 1)


@st.composite
def byte_edits(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes with some replaced, cut off or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["set", "set", "cut", "insert"]))
        if kind == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut" and draw(st.booleans()):
            del data[at:]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)
