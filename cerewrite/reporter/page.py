"""The page that every HTML file is: style, libraries and data inside, nothing from elsewhere.

The content security policy names the page's own scripts by their digests, and no address: whatever
stands in a report, nothing of it runs, and no request leaves the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from html import escape
from importlib.resources import files
from typing import Any

from cerewrite.errors import printable

LIBRARIES = {"d3": "d3.min.js", "plot": "plot.umd.min.js"}
"""d3 and Observable Plot, each with its licence."""


@functools.cache
def _asset(name: str) -> str:
    return (files("cerewrite.reporter") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _scripts() -> tuple[str, ...]:
    """Libraries behind their licences, then the page's own."""
    found = [f"/*\n{_asset(f'{one}.LICENSE')}*/\n{_asset(code)}" for one, code in LIBRARIES.items()]
    return (*found, _asset("report.js"))


def page_html(name: str, body: str, footer: str, data: dict[str, Any] | None = None) -> str:
    """A whole HTML document.

    Args:
        name: what the page is about, as plain text.
        body: what it holds, as HTML.
        footer: its last line, as plain text.
        data: what the page's scripts draw; without any there are none.
    """
    name = printable(name)
    scripts = () if data is None else _scripts()
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()) for one in scripts)
    allowed = " ".join(f"'sha256-{one.decode()}'" for one in digests) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>cerewrite: {escape(name)}</title>\n"
        f"<style>{_asset('report.css')}</style>\n</head>\n"
    )
    code = "".join(f"<script>{one}</script>\n" for one in scripts)
    text = f"<h1>{escape(name)}</h1>\n{body}\n<footer>{escape(footer)}</footer>\n"
    return f"{head}<body>\n{printable(text, keep=chr(10))}{_data(data)}{code}</body>\n</html>\n"


def _data(data: dict[str, Any] | None) -> str:
    """Data that scripts read: JSON in which no markup can begin; not finite numbers are null."""
    if data is None:
        return ""
    text = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="data">{text}</script>\n'


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return printable(value, keep="\n")
    return None if isinstance(value, float) and not math.isfinite(value) else value
