"""Rank correlations of outcomes with measures and with naive controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.training.evidence import Entry
from benchmarks.training.statistics import (
    Array,
    Interval,
    bootstrap,
    correlation,
    partial_spearman,
    spearman,
    within,
)

MEASURES = ("sign-variance", "log-variance", "nu", "leading-order")
CONTROLS: dict[str, Callable[[Entry], float]] = {
    "1 / total width": lambda entry: -entry.figures["total width"],
    "depth": lambda entry: entry.task.depth,
    "1 / parameters": lambda entry: -entry.figures["params"],
}
"""Controls, each in the direction in which more is expected to be worse."""


def predictor(entries: Sequence[Entry], name: str) -> Array:
    """A measure or a control of every entry."""
    if name in CONTROLS:
        return np.array([CONTROLS[name](entry) for entry in entries])
    return np.array([entry.figures[name] for entry in entries])


def _outcomes(entries: Sequence[Entry], name: str) -> Array:
    runs = min(len(entry.final["seeds"]) for entry in entries)
    return np.array([entry.outcome(name)[:runs] for entry in entries])


def _groups(entries: Sequence[Entry]) -> Array:
    return np.array([entry.task.name for entry in entries])


def complete(entries: Sequence[Entry], least: int) -> list[Entry]:
    """The entries of baselines with at least so many designs per optimiser."""
    counts = Counter((entry.task.name, entry.optimiser) for entry in entries)
    return [entry for entry in entries if counts[entry.task.name, entry.optimiser] >= least]


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are numbers; NaN if none is."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def within_baselines(
    entries: Sequence[Entry], names: Sequence[str], outcome: str, draws: int
) -> dict[str, Interval]:
    """Rank correlations inside each baseline's designs, averaged over baselines.

    Args:
        entries: designs of one optimiser at their baselines' parameters.
        names: predictors.
        outcome: which outcome.
        draws: bootstrap resamples.

    Returns:
        per predictor; and per pair of them, under ``"a - b"``, the difference.
    """
    table = {name: predictor(entries, name) for name in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]

    def statistic(index: Array, label: Array, y: Array) -> list[float]:
        each = [label == value for value in np.unique(label)]
        found = {
            name: _mean([spearman(x[index][g], y[g]) for g in each]) for name, x in table.items()
        }
        return [*found.values(), *(found[a] - found[b] for a, b in pairs)]

    groups, outcomes = _groups(entries), _outcomes(entries, outcome)
    result = bootstrap(statistic, groups, outcomes, draws=draws, designs=False)
    return dict(zip([*names, *(f"{a} - {b}" for a, b in pairs)], result, strict=True))


def pooled(
    entries: Sequence[Entry], names: Sequence[str], outcome: str, draws: int
) -> dict[str, Interval]:
    """Rank correlations over all designs of some baselines together, of any parameters."""
    table = {name: predictor(entries, name) for name in names}

    def statistic(index: Array, label: Array, y: Array) -> list[float]:
        return [spearman(x[index], y) for x in table.values()]

    groups, outcomes = _groups(entries), _outcomes(entries, outcome)
    result = bootstrap(statistic, groups, outcomes, draws=draws, clusters=False)
    return dict(zip(names, result, strict=True))


def partial(entries: Sequence[Entry], outcome: str, draws: int) -> dict[str, Interval]:
    """Partial rank correlations of the measures, given total width, depth and parameters."""
    table = {name: predictor(entries, name) for name in MEASURES}
    controls = [predictor(entries, name) for name in CONTROLS]

    def statistic(index: Array, label: Array, y: Array) -> list[float]:
        known = [c[index] for c in controls]
        return [partial_spearman(x[index], y, known) for x in table.values()]

    groups, outcomes = _groups(entries), _outcomes(entries, outcome)
    result = bootstrap(statistic, groups, outcomes, draws=draws, clusters=False)
    return dict(zip(MEASURES, result, strict=True))


def partial_within(entries: Sequence[Entry], outcome: str, draws: int) -> dict[str, Interval]:
    """Partial rank correlations given total width, ranks taken inside each baseline."""
    table = {name: predictor(entries, name) for name in MEASURES}
    width = predictor(entries, "1 / total width")

    def statistic(index: Array, label: Array, y: Array) -> list[float]:
        known, left = within(width[index], label), within(y, label)
        slope = known / max(float(known @ known), 1e-12)
        return [
            correlation(x - known * float(slope @ x), left - known * float(slope @ left))
            for x in (within(values[index], label) for values in table.values())
        ]

    groups, outcomes = _groups(entries), _outcomes(entries, outcome)
    result = bootstrap(statistic, groups, outcomes, draws=draws, designs=False)
    return dict(zip(MEASURES, result, strict=True))


def collinearity(entries: Sequence[Entry], name: str) -> float:
    """Mean rank correlation of a measure with 1 / total width inside baselines."""
    x, width = predictor(entries, name), predictor(entries, "1 / total width")
    groups = [_groups(entries) == group for group in dict.fromkeys(_groups(entries).tolist())]
    return float(np.mean([spearman(x[group], width[group]) for group in groups]))
