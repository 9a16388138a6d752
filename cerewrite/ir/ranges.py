"""What the fields of records may hold: the one declaration that files are decoded by.

A record names these types in its annotations; `cerewrite.ir.serial` decodes by them, and
`cerewrite.ir.schema` writes them down as JSON schema. Ranges are inclusive.
"""

from __future__ import annotations

import re
import sys
from typing import Annotated

from msgspec import Meta

from cerewrite.errors import UNSEEN

LARGEST_COST = 1 << 53
LARGEST_SIZE = (1 << 31) - 1
MOST_MEMBERS = 1 << 16
LARGEST_SEED = (1 << 63) - 1
LARGEST_FACTOR = 1e60

PATTERNS: dict[str, str] = {}
"""What a text must be, in words, by the regular expression that it must match."""

_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"


def matching(words: str, pattern: str, **more: object) -> Meta:
    """A whole text that matches ``pattern``; ``words`` say what that is, for messages."""
    whole = f"^({pattern})$(?!\\n)"  # Python's `$` matches before a last line break too
    PATTERNS[whole] = words
    return Meta(pattern=whole, extra_json_schema=dict(more) or None)


def one_of(*choices: str) -> Meta:
    """One of a few words."""
    return matching(
        f"one of {', '.join(choices)}", "|".join(map(re.escape, choices)), enum=list(choices)
    )


Text = Annotated[str, matching("one line without control characters", f"[^{UNSEEN}]*")]
"""A qualified name, a reason."""
Note = Annotated[str, matching("text without control characters", rf"([\t\n]|[^{UNSEEN}])*")]
"""A user's comment, of several lines."""
ClassName = Annotated[str, matching("a dotted identifier", _DOTTED)]
Word = Annotated[str, matching("a registered name", r"[\w.:-]*")]
"""A registered name, or ``module:name``."""
Hexadecimal = Annotated[str, matching("hexadecimal digits", "[0-9a-f]*")]
Source = Annotated[
    str,
    matching(
        "path/model.py:factory or package.module:factory",
        rf"([^{UNSEEN}]+\.py(:{_DOTTED})?|{_DOTTED}:{_DOTTED})?",
    ),
]
"""A factory, or ``""``."""
Scope = Annotated[str, one_of("block", "stage", "network")]
AnyScope = Annotated[str, one_of("block", "stage", "network", "auto")]

Size = Annotated[int, Meta(ge=1, le=LARGEST_SIZE)]
"""Channels, members, positions, examples."""
Members = Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
"""Members of a split: each is drawn by itself, so that a million take minutes."""
Index = Annotated[int, Meta(ge=0, le=LARGEST_SIZE)]
Target = Annotated[int, Meta(ge=-1, le=LARGEST_SIZE)]
"""An index, or -1 for none."""
Cost = Annotated[int, Meta(ge=0, le=LARGEST_COST)]
"""Parameters, FLOPs, bytes, nanoseconds."""
Seed = Annotated[int, Meta(ge=0, le=LARGEST_SEED)]

Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""A finite number of at least 0."""
Factor = Annotated[float, Meta(ge=-LARGEST_FACTOR, le=LARGEST_FACTOR)]
"""Small enough that a product of four is finite."""
Spread = Annotated[float, Meta(ge=0, le=LARGEST_FACTOR)]
"""A `Factor` of at least 0."""
Extended = Annotated[float, Meta(extra={"extended": True})]
"""Any number; in JSON one that is not finite is a word: inf, -inf or nan."""
