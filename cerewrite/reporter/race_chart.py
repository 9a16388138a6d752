"""Held-out loss of every finalist as it trains: over steps, and over seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from cerewrite.ir.raced import Race, Reading
from cerewrite.reporter.figures import number

WIDTH, HEIGHT, MARGIN = 960, 180, 24
"""Size of a picture in SVG units, and the room for its labels."""

LEFT, RIGHT = 90, 180
"""Room for the vertical axis, and for the designs' names."""

COLOURS = ("#777777", "#2f6fb0", "#c46a1b", "#1f7a3f", "#8a3fa0", "#b3261e", "#00838f", "#6d4c41")
"""One per design, the baseline's first; readable on light and on dark paper."""


def race_chart(race: Race) -> list[tuple[str, str]]:
    """Titles and SVG pictures; none where nothing reached the finals.

    Args:
        race: what to draw.
    """
    if not any(item.curve for item in race.entrants):
        return []
    return [
        ("Held-out loss over steps", _panel(race, "steps", lambda at: float(at.steps))),
        ("Held-out loss over seconds", _panel(race, "s", lambda at: at.seconds)),
    ]


def _panel(race: Race, unit: str, across: Callable[[Reading], float]) -> str:
    """One line per design over a shared axis; losses on a logarithmic scale if all are above 0."""
    shown = [
        (index, item.name, [at for at in item.curve if math.isfinite(at.loss)])
        for index, item in enumerate(race.entrants)
        if item.curve
    ]
    losses = [at.loss for _, _, curve in shown for at in curve]
    scale: Callable[[float], float] = math.log if min(losses) > 0 else float
    low, high = scale(min(losses)), scale(max(losses))
    widest = max(across(at) for _, _, curve in shown for at in curve)
    room = WIDTH - LEFT - RIGHT
    parts = []
    for index, name, curve in shown:
        colour = COLOURS[index % len(COLOURS)]
        places = [
            (
                LEFT + room * across(at) / widest,
                MARGIN + HEIGHT * (1 - _share(scale(at.loss), low, high)),
            )
            for at in curve
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>'
            f"{escape(name)}: {number(at.loss)} at {number(across(at))} {unit}</title></circle>"
            for (x, y), at in zip(places, curve, strict=True)
        ]
        top = MARGIN + 18 * index
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 20}" y="{top - 9}" width="12" height="12" '
            f'fill="{colour}"/><text x="{WIDTH - RIGHT + 38}" y="{top + 2}">{escape(name)}</text>'
        )
    base = MARGIN + HEIGHT
    height = max(base, MARGIN + 18 * len(race.entrants)) + MARGIN
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="held-out loss over {unit}">'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        f'<text x="0" y="{MARGIN + 4}">{number(max(losses))}</text>'
        f'<text x="0" y="{base}">{number(min(losses))}</text>{"".join(parts)}'
        f'<text x="{LEFT}" y="{base + 16}">0 to {number(widest)} {unit}</text></svg>'
    )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
