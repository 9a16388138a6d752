"""Curves over steps as one SVG file that stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cerewrite.reporter.figures import number

WIDTH, HEIGHT, MARGIN = 960, 180, 24
"""Size of a panel in SVG units, and the room for its labels."""

LEFT = 90
"""Room for the labels of the vertical axis, in SVG units."""

STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}"
    ".axis{stroke:#999}.curve{fill:none;stroke:#1f5fa8;stroke-width:2}.dot{fill:#1f5fa8}"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One panel.

    Attributes:
        title: its heading.
        points: horizontal and vertical values, in order; those that are not finite are left out
            of the curve and counted in the heading.
    """

    title: str
    points: tuple[tuple[float, float], ...]


def curves_chart(curves: Sequence[Curve], across: str) -> str:
    """Panels one above the other that share their horizontal axis; an SVG document.

    Args:
        curves: the panels.
        across: what the horizontal axis counts.

    Example:
        >>> text = curves_chart([Curve("loss", ((0, 2.0), (10, 1.0)))], "steps")
        >>> text.startswith("<svg xmlns"), "loss" in text, text.count("<polyline")
        (True, True, 1)
    """
    panel = HEIGHT + 3 * MARGIN
    ends = [x for curve in curves for x, _ in curve.points]
    span = (min(ends, default=0.0), max(ends, default=1.0))
    body = "".join(_panel(curve, span, index * panel) for index, curve in enumerate(curves))
    height = panel * len(curves)
    label = f"{across}: {number(span[0])} to {number(span[1])}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + MARGIN}" '
        f'role="img" aria-label="{escape(", ".join(c.title for c in curves))}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{body}'
        f'<text x="{LEFT}" y="{height + 8}">{escape(label)}</text></svg>\n'
    )


def _panel(curve: Curve, span: tuple[float, float], top: int) -> str:
    """Heading, axis, extreme values, curve."""
    finite = [(x, y) for x, y in curve.points if math.isfinite(y)]
    lost = len(curve.points) - len(finite)
    title = curve.title + (f" ({lost} not finite)" if lost else "")
    low = min([0.0, *(y for _, y in finite)])
    high = max([low, *(y for _, y in finite)])
    base = top + MARGIN + HEIGHT
    places = [
        (
            LEFT + (WIDTH - LEFT - 10) * _share(x, *span),
            base - HEIGHT * _share(y, low, high),
        )
        for x, y in finite
    ]
    line = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    dots = "".join(
        f'<circle class="dot" cx="{x:.2f}" cy="{y:.2f}" r="3">'
        f"<title>{number(value[0])}: {number(value[1])}</title></circle>"
        for (x, y), value in zip(places, finite, strict=True)
    )
    return (
        f'<text class="title" x="{LEFT}" y="{top + MARGIN - 8}">{escape(title)}</text>'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}"/>'
        f'<text x="0" y="{top + MARGIN + 12}">{number(high)}</text>'
        f'<text x="0" y="{base}">{number(low)}</text>'
        f'<polyline class="curve" points="{line}"/>{dots}'
    )


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others, in [0, 1]; the middle if they are one."""
    return (value - low) / (high - low) if high > low else 0.5
