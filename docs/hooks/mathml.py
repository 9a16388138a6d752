r"""Formulas of the documentation as MathML, which browsers draw without scripts or fonts.

A hook of mkdocs: `pymdownx.arithmatex` marks formulas, this turns their LaTeX into MathML. A
display formula with ``\tag{n}`` gets its number beside it and the anchor ``eq-n``.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)  # \( .. \) in a span, \[ .. \] in a div
_TAG = re.compile(r"\\tag\{(\d+)\}")


def mathml(latex: str, *, display: bool) -> str:
    r"""One formula as HTML.

    Args:
        latex: the formula without its delimiters.
        display: whether it stands on a line of its own.

    Example:
        >>> "<mi>x</mi>" in mathml("x^2", display=False)
        True
        >>> mathml(r"x \tag{3}", display=True).startswith('<div class="equation" id="eq-3">')
        True
    """
    found = _TAG.search(latex)
    formula = convert(_TAG.sub("", latex).strip(), display="block" if display else "inline")
    if not display:
        return formula
    number = "" if found is None else f"<span>({found[1]})</span>"
    anchor = "" if found is None else f' id="eq-{found[1]}"'
    return f'<div class="equation"{anchor}>{formula}{number}</div>'


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of every page."""
    return _FORMULA.sub(
        lambda match: mathml(html.unescape(match[2]), display=match[1] == "div"), content
    )
