"""Bar charts as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from html import escape

from cerewrite import ir
from cerewrite.reporter.figures import count, number, percent, ratio, scaled
from cerewrite.reporter.measured import TITLES, values

WIDTH, HEIGHT, MARGIN = 960, 180, 24
"""Size of a chart in SVG units, and the room for its labels."""


def layers_chart(analysis: ir.Analysis) -> str:
    """One upright bar per layer, in execution order: its kappa over the sum of all kappas."""
    layers = analysis.layers
    largest = max((layer.share for layer in layers), default=0.0) or 1.0
    step = WIDTH / max(1, len(layers))
    bars = []
    for index, layer in enumerate(layers):
        height = (HEIGHT - MARGIN) * layer.share / largest
        text = f"{layer.name}: {percent(layer.share)}, kappa {number(layer.kappa)}"
        bars.append(
            f'<rect class="bar" x="{index * step + 0.1 * step:.2f}" y="{HEIGHT - height:.2f}" '
            f'width="{0.8 * step:.2f}" height="{height:.2f}"><title>{escape(text)}</title></rect>'
        )
    label = f"execution order; the tallest bar is {percent(max(0.0, largest))}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + MARGIN}" role="img" aria-label="share of nu">'
        f'{"".join(bars)}<line class="axis" x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>'
        f'<text x="0" y="{HEIGHT + 16}">{escape(label)}</text></svg>'
    )


def costs_chart(plan: ir.Plan) -> str:
    """Two bars each for params, FLOPs and the measures; the longer of a pair fills the width."""
    old, new = plan.baseline, plan.planned
    pairs = (
        ("params", old.params, new.params, count(old.params), count(new.params)),
        ("FLOPs", old.flops, new.flops, scaled(old.flops), scaled(new.flops)),
        *(
            (name, before, after, number(before), number(after))
            for name, before, after in zip(
                TITLES, values(old.measures), values(new.measures), strict=True
            )
        ),
    )
    parts = []
    for index, (title, before, after, before_text, after_text) in enumerate(pairs):
        top = index * 54
        parts.append(f'<text x="0" y="{top + 25}">{title}</text>')
        parts.append(_bar("bar", before, max(before, after), top, f"{before_text} before"))
        text = f"{after_text} after ({ratio(after, before)})"
        parts.append(_bar("after", after, max(before, after), top + 20, text))
    return (
        f'<svg viewBox="0 0 {WIDTH} {54 * len(pairs)}" role="img" aria-label="before and after">'
        f"{''.join(parts)}</svg>"
    )


def _bar(kind: str, value: float, largest: float, top: int, text: str) -> str:
    left, room = 110, WIDTH - 330
    share = value / largest if largest > 0 and math.isfinite(value / largest) else 0.0
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{room * share:.2f}" height="18"/>'
        f'<text x="{left + room * share + 8:.2f}" y="{top + 14}">{escape(text)}</text>'
    )
