"""The document's correlations: which predictor orders designs as training does."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.training.compare import written
from benchmarks.training.correlate import (
    CONTROLS,
    MEASURES,
    collinearity,
    complete,
    partial,
    partial_within,
    pooled,
    within_baselines,
)
from benchmarks.training.evidence import OUTCOMES, TITLES, Entry
from benchmarks.training.statistics import Interval
from benchmarks.training.tasks import OPTIMISERS

Row = dict[str, Interval]
Key = tuple[str, str]
"""Optimiser and outcome."""

NAMES = {"sgd": "SGD", "adam": "Adam"}
WIDTH = "1 / total width"

FEWEST = 4
"""Baselines with fewer designs of equal parameters are left out of correlations inside them."""


@dataclass(frozen=True)
class Answers:
    """Correlations per optimiser and outcome.

    Attributes:
        inside: inside baselines at equal parameters, with differences between measures.
        partial: the same, given total width.
    """

    inside: dict[Key, Row]
    partial: dict[Key, Row]


def correlations(entries: Sequence[Entry], draws: int) -> tuple[list[str], Answers]:
    """The section's lines, and the figures that verdicts rest on."""
    equal = complete([entry for entry in entries if entry.equal_budget], FEWEST)
    inside = _every(equal, lambda part, out: within_baselines(part, (*MEASURES, WIDTH), out, draws))
    given = _every(equal, lambda part, out: partial_within(part, out, draws))
    one = [entry for entry in equal if entry.optimiser == OPTIMISERS[0]]
    alike = ", ".join(f"{name} {collinearity(one, name):+.2f}" for name in MEASURES)
    lines = [
        "## What orders designs as training does",
        "",
        "Spearman's rank correlations. A positive sign means: the lower the predictor, the better",
        "the outcome (fewer steps, lower loss, fewer errors). `1 / total width`, depth and",
        "`1 / parameters` are the naive controls.",
        "",
        f"### Inside baselines, at equal parameters ({len(one)} designs)",
        "",
        *textwrap.wrap(
            f"Mean over the {len({e.task.name for e in one})} baselines with at least {FEWEST} "
            "designs of the correlation over a baseline's designs; bootstrap over baselines and "
            "seeds. At equal parameters designs differ in little but the number of members, so "
            f"predictors share much of their order: mean rank correlation with `{WIDTH}`: {alike}.",
            98,
        ),
        "",
        *_table((*MEASURES, WIDTH), inside),
        "Partial correlations given total width (ranks inside baselines):",
        "",
        *_table(MEASURES, given),
    ]
    for title, chosen in _families(entries):
        lines += _pooled(title, chosen, draws)
    return lines, Answers(inside, given)


def _families(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Baselines whose outcomes compare: the same data, loss and target."""
    return [
        (title, [entry for entry in entries if entry.task.name.startswith(names)])
        for title, names in (("Digits, MLPs", ("mlp",)), ("Digits, CNNs", ("cnn", "res")))
    ]


def _pooled(title: str, entries: Sequence[Entry], draws: int) -> list[str]:
    if not entries:
        return []
    names = (*MEASURES, *CONTROLS)
    count = sum(entry.optimiser == OPTIMISERS[0] for entry in entries)
    return [
        f"### {title}, pooled ({count} designs, any number of parameters)",
        "",
        "Over all designs of these baselines at once; bootstrap over designs and seeds, the",
        "baselines as they are.",
        "",
        *_table(names, _every(entries, lambda part, out: pooled(part, names, out, draws))),
        "Partial correlations given total width, depth and parameters:",
        "",
        *_table(MEASURES, _every(entries, lambda part, out: partial(part, out, draws))),
    ]


def _every(
    entries: Sequence[Entry], method: Callable[[Sequence[Entry], str], Row]
) -> dict[Key, Row]:
    """A method on each optimiser's entries and each outcome."""
    found = {}
    for optimiser in OPTIMISERS:
        part = [entry for entry in entries if entry.optimiser == optimiser]
        if part:
            found.update({(optimiser, outcome): method(part, outcome) for outcome in OUTCOMES})
    return found


def _table(names: Sequence[str], found: dict[Key, Row]) -> list[str]:
    heads = [f"{TITLES[outcome]}, {NAMES[optimiser]}" for optimiser, outcome in found]
    lines = ["| predictor | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for name in names:
        cells = [written(row[name], 2, 1.0, "+") for row in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]
