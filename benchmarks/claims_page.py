"""docs/CLAIMS.md: per claim and model the figure, what was expected, and what came."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.claims_expected import Claim, N, U, Y
from benchmarks.claims_models import KINDS, size, variants
from benchmarks.training.statistics import Interval

if TYPE_CHECKING:
    from benchmarks.claims import Table

Judged = dict[str, tuple[Interval, int, str]]
Found = Sequence[tuple[Claim, Judged]]
SHORT = {Y: "yes", N: "no", U: "."}


def page(table: Table, found: Found, predicted: str) -> str:
    """All of it."""
    lines = [
        "# Do the papers' claims come true?",
        "",
        "Written by `python -m benchmarks.claims` from `benchmarks/claims.jsonl`; do not edit.",
        "",
        *_protocol(table),
        "## In short",
        "",
        *_counts(found),
        "",
        *_matrix(table, found),
        "",
        "## Expected",
        "",
        predicted,
        "## Found",
        "",
    ]
    for claim, judged in found:
        lines += _claim(table, claim, judged)
    lines += ["## Models", "", *_models()]
    return "\n".join([*lines, ""])


def _protocol(table: Table) -> list[str]:
    from benchmarks.claims import BATCH, DRAWS, RANDOM, RATE, STEP_BATCH, STEPS, TRAIN

    text = (
        f"{len(table.models)} small models on scikit-learn's digits (8x8), "
        f"{len(table.seeds)} seeds: each draws weights, examples and their order anew, the same "
        f"examples for all. Figures are those of `cerewrite.diagnose` on {BATCH} examples, at the "
        f"start and after {STEPS} steps of Adam at {RATE:g} (batches of {STEP_BATCH} of {TRAIN}); "
        f"nu by draws is Var[K] / E[K]^2 of {DRAWS} draws a seed, which reads low where it is "
        f"large; random labels are {RANDOM}, learnt in as many steps. Brackets hold Student's 95 % "
        "interval over seeds, of differences paired by seed. A claim came true (yes) where the "
        "whole interval lies as claimed, did not (no) where it lies wholly elsewhere, and is not "
        "decided otherwise. Closed forms have no interval: their sign decides. The intervals do "
        "not cover that many are looked at."
    )
    return [*textwrap.wrap(text, 98), ""]


def _counts(found: Found) -> list[str]:
    every = [row for _, judged in found for row in judged.values()]
    counts = {word: sum(v == word for _, _, v in every) for word in (Y, N, U)}
    right = sum(
        verdict == claim.expected.get(model, claim.rest)
        for claim, judged in found
        for model, (_, _, verdict) in judged.items()
    )
    text = (
        f"{len(found)} claims, {len(every)} figures: {counts[Y]} came true, {counts[N]} did not, "
        f"{counts[U]} are not decided. Of the expectations {right} of {len(every)} held. In the "
        "table a point is not decided, an empty cell has no value."
    )
    return textwrap.wrap(text, 98)


def _matrix(table: Table, found: Found) -> list[str]:
    lines = [
        f"| claim | {' | '.join(table.models)} |",
        "| --- " * (len(table.models) + 1) + "|",
    ]
    for claim, judged in found:
        cells = [SHORT[judged[m][2]] if m in judged else "" for m in table.models]
        lines.append(f"| {claim.title} | {' | '.join(cells)} |")
    return lines


def _claim(table: Table, claim: Claim, judged: Judged) -> list[str]:
    source = ", ".join(f"arXiv {number}" for number in claim.source.split(", "))
    lines = [
        f"### {claim.title}",
        "",
        f"{source}. Figure: {claim.shown}.",
        "",
    ]
    if judged:
        lines += [
            "| model | figure | seeds | expected | came true |",
            "| --- | --- | --- | --- | --- |",
        ]
    for model, (interval, seeds, verdict) in judged.items():
        expected = claim.expected.get(model, claim.rest)
        lines.append(
            f"| {model} | {_figure(interval, seeds)} | {seeds} | {expected} | {verdict} |"
        )
    reasons: dict[str, list[str]] = {}
    for model in table.models:
        if model not in judged and not (claim.only and model not in claim.only):
            reasons.setdefault(table.reason(claim, model), []).append(model)
    if reasons:
        text = "; ".join(f"{', '.join(models)} ({why})" for why, models in reasons.items())
        gap = [""] if judged else []
        lines += [*gap, *textwrap.wrap(f"Without a value: {text}.", 98)]
    return [*lines, ""]


def _figure(found: Interval, seeds: int) -> str:
    bounds = f" [{found.low:+.3g}, {found.high:+.3g}]" if seeds > 1 else ""
    return f"{found.value:+.3g}{bounds}"


def _models() -> list[str]:
    lines = [
        "Width, depth and parameters of every variant (benchmarks/claims_models.py).",
        "",
        "| model | variant | width | depth | parameters |",
        "| --- " * 5 + "|",
    ]
    for name, kind in KINDS.items():
        for variant, shape in variants(kind).items():
            count = size(kind, shape)
            lines.append(f"| {name} | {variant} | {shape.width} | {shape.depth} | {count:,} |")
    return lines
