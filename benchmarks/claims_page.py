"""docs/CLAIMS.md: per claim and model the figure, what was expected, and what came."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.claims_expected import CLAIMS, PREDICTED, Claim, N, Term, U, Y
from benchmarks.claims_models import (
    BATCH,
    DRAWS,
    KINDS,
    RANDOM,
    RATE,
    STEP_BATCH,
    STEPS,
    TRAIN,
    size,
    variants,
)
from benchmarks.training.statistics import Interval, mean

Line = dict[str, Any]
Judged = dict[str, tuple[Interval, int, str]]
Found = Sequence[tuple[Claim, Judged]]
UNCHECKED = (
    "What ZiCo, SynFlow, NASWOT and the gradient norm claim is that they order designs as training "
    "does: docs/REFEREE.md. That variance constancy trains as batch norm does, that orthogonal "
    "heads transfer better, and that the curvature vanishes in the middle of a training are claims "
    "about longer trainings than these. A DenseNet's skips are concatenations, in which local maps "
    "and virtual depth see no sum."
)
"""What the papers claim beside."""
SHORT = {Y: "yes", N: "no", U: "."}


class Table:
    """The stored figures by model, variant and seed."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.rows = {(row["model"], row["variant"], row["seed"]): row for row in lines}
        self.models = [name for name in KINDS if any(row[0] == name for row in self.rows)]
        self.seeds = sorted({seed for _, _, seed in self.rows})

    def figure(self, model: str, term: Term, seed: int, claim: Claim) -> float | None:
        """One term of a claim with its sign; None without."""
        row = self.rows.get((term.kind or model, term.variant, seed))
        value = row["figures"].get(term.figure) if row else None
        if value is None or (claim.log and value <= 0):
            return None
        value = math.log10(value) if claim.log else abs(value) if claim.size else value
        return term.sign * float(value)

    def terms(self, claim: Claim, model: str) -> list[list[float]]:
        """The claim's terms with their signs, of every seed that has them all."""
        each = [
            [self.figure(model, term, seed, claim) for term in claim.terms] for seed in self.seeds
        ]
        known = [[value for value in terms if value is not None] for terms in each]
        return [terms for terms in known if len(terms) == len(claim.terms)]

    def values(self, claim: Claim, model: str) -> list[float]:
        """The claim's figure, seed by seed, of the seeds that have it."""
        scale = 1.0
        if claim.per_width:
            narrow, _, wide = KINDS[model].widths
            scale = math.log10(wide / narrow)
        return [sum(terms) / scale for terms in self.terms(claim, model)]

    def levels(self, claim: Claim, model: str) -> list[float]:
        """Means over seeds of each term by itself; geometric ones where logarithms are taken."""
        columns = zip(*self.terms(claim, model), strict=True)
        means = [
            term.sign * fmean(column) for term, column in zip(claim.terms, columns, strict=True)
        ]
        return [10**value for value in means] if claim.log else means

    def reason(self, claim: Claim, model: str) -> str:
        """Why a model has no value."""
        if not concerns(claim, model):
            return "no skips"
        for term in claim.terms:
            row = self.rows.get((term.kind or model, term.variant, self.seeds[0]))
            if row is None:
                return "no gate" if "gate" in term.variant else "no skips"
            if term.figure not in row["figures"]:
                diagnostic = term.figure.removeprefix("trained ").partition(":")[0]
                lone = "no sum of a value and a function of it" if claim.skips else "not finite"
                return str(row["gaps"].get(diagnostic, lone))
        return "too few seeds have it"


def concerns(claim: Claim, model: str) -> bool:
    """Whether a claim is about such a model."""
    return model in (claim.only or KINDS) and (KINDS[model].skips or not claim.skips)


def verdict(claim: Claim, found: Interval) -> str:
    """Yes where the interval lies in the claim's range, no where it lies outside."""
    if claim.low < found.low and found.high < claim.high:
        return Y
    return N if found.high <= claim.low or found.low >= claim.high else U


def judged(table: Table, claim: Claim) -> dict[str, tuple[Interval, int, str]]:
    """Figure with its interval, seeds and verdict, of every model that has one."""
    found = {}
    for model in table.models:
        if not concerns(claim, model):
            continue
        values = table.values(claim, model)
        closed = "(closed form)" in claim.title
        if len(values) > 1 or (closed and values):
            interval = mean(values) if len(values) > 1 else Interval(*values * 3)
            found[model] = interval, len(values), verdict(claim, interval)
    return found


def document(rows: Sequence[Line]) -> str:
    """The page, from the stored lines alone."""
    table = Table(rows)
    found = [(claim, judged(table, claim)) for claim in CLAIMS]
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
        PREDICTED,
        "## Found",
        "",
    ]
    for claim, each in found:
        lines += _claim(table, claim, each)
    lines += ["## Not checked", "", *textwrap.wrap(UNCHECKED, 98), ""]
    lines += ["## Models", "", *_models()]
    return "\n".join([*lines, ""])


def _protocol(table: Table) -> list[str]:
    text = (
        f"{len(table.models)} small models on scikit-learn's digits (8x8), "
        f"{len(table.seeds)} seeds: each draws weights, examples and their order anew, the same "
        f"examples for all. Figures are those of `cerewrite.diagnose` on {BATCH} examples, at the "
        f"start and after {STEPS} steps of Adam at {RATE:g} (batches of {STEP_BATCH} of {TRAIN}); "
        f"nu by draws is Var[K] / E[K]^2 of {DRAWS} draws a seed, which reads low where it is "
        f"large; random labels are {RANDOM}, learnt in as many steps. Brackets hold Student's 95 % "
        "interval over seeds, of differences paired by seed. A claim came true (yes) where the "
        "whole interval lies as claimed, did not (no) where it lies wholly elsewhere, and is not "
        "decided otherwise. Levels are the means over seeds of what the figure is made of, in its "
        "order (geometric where logarithms are taken). Closed forms have no interval: their sign "
        "decides. The intervals do not cover that many are looked at."
    )
    return [*textwrap.wrap(text, 98), ""]


def _counts(found: Found) -> list[str]:
    every = [row for _, each in found for row in each.values()]
    counts = {word: sum(v == word for _, _, v in every) for word in (Y, N, U)}
    right = sum(
        word == claim.expected.get(model, claim.rest)
        for claim, each in found
        for model, (_, _, word) in each.items()
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
    for claim, each in found:
        cells = [SHORT[each[m][2]] if m in each else "" for m in table.models]
        lines.append(f"| {claim.title} | {' | '.join(cells)} |")
    return lines


def _claim(table: Table, claim: Claim, each: Judged) -> list[str]:
    source = ", ".join(f"arXiv {number}" for number in claim.source.split(", "))
    lines = [
        f"### {claim.title}",
        "",
        f"{source}. Figure: {claim.shown}.",
        "",
    ]
    if each:
        lines += [
            "| model | levels | figure | seeds | expected | came true |",
            "| --- " * 6 + "|",
        ]
    for model, (interval, seeds, word) in each.items():
        expected = claim.expected.get(model, claim.rest)
        levels = ", ".join(f"{level + 0.0:.3g}" for level in table.levels(claim, model))
        lines.append(
            f"| {model} | {levels} | {_figure(interval, seeds)} | {seeds} | {expected} | {word} |"
        )
    reasons: dict[str, list[str]] = {}
    for model in table.models:
        if model not in each and model in (claim.only or KINDS):
            reasons.setdefault(table.reason(claim, model), []).append(model)
    if reasons:
        text = "; ".join(f"{', '.join(models)} ({why})" for why, models in reasons.items())
        gap = [""] if each else []
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
