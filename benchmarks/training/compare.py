"""Designs against their baselines: per task, and over all tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.training.evidence import Entry, find
from benchmarks.training.statistics import Interval, difference, mean, spread_ratio
from benchmarks.training.tasks import OPTIMISERS

CHOICES = {
    "primal log-variance": "least log-variance",
    "primal nu": "least nu",
    "primal leading-order": "least leading order (members of 8 or more)",
    "by hand 2": "by hand, 2 members",
    "by hand 8": "by hand, 8 members",
    "by hand 32": "by hand, 32 members",
    "dual log-variance": "dual, same log-variance",
    "narrow": "one member, the dual's parameters",
}
"""Labels of the designs that are compared, with their titles."""


@dataclass(frozen=True)
class Pair:
    """A design and another of the same task and optimiser.

    Attributes:
        entry: the design.
        other: what it is compared with.
    """

    entry: Entry
    other: Entry

    def gap(self, outcome: str) -> Interval:
        """Difference of the outcome's means; logarithms for all but error shares."""
        return difference(self.entry.outcome(outcome), self.other.outcome(outcome))

    def spread(self) -> Interval:
        """Ratio of the spreads of log final loss over seeds."""
        return spread_ratio(self.entry.outcome("loss"), self.other.outcome("loss"))


def pairs(
    entries: Sequence[Entry], label: str, other: str = "baseline", optimiser: str | None = None
) -> list[Pair]:
    """Every task's design of one label with that of another, where both were trained."""
    found = []
    for task in dict.fromkeys(entry.task.name for entry in entries):
        for name in OPTIMISERS if optimiser is None else (optimiser,):
            both = (find(entries, task, name, label), find(entries, task, name, other))
            if both[0] is not None and both[1] is not None:
                found.append(Pair(both[0], both[1]))
    return found


def over_tasks(found: Sequence[Pair], outcome: str) -> Interval | None:
    """Mean gap over tasks, Student's interval over tasks: they are the sample.

    Args:
        found: one pair per task.
        outcome: an outcome, or ``spread`` for the logarithm of the spreads' ratio. Errors of
            regressions are logarithms and left out of the mean of error shares.
    """
    if outcome == "spread":
        gaps = [math.log(pair.spread().value) for pair in found]
    elif outcome == "error":
        gaps = [p.gap(outcome).value for p in found if p.entry.task.loss != "mse"]
    else:
        gaps = [pair.gap(outcome).value for pair in found]
    gaps = [gap for gap in gaps if math.isfinite(gap)]
    return mean(gaps) if len(gaps) > 1 else None


def parameter_share(found: Sequence[Pair]) -> float:
    """Geometric mean of the designs' parameters over the others'; NaN without designs."""
    logs = [math.log(p.entry.figures["params"] / p.other.figures["params"]) for p in found]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


def tally(found: Sequence[Pair], outcome: str) -> tuple[int, int, int]:
    """How many pairs are better, worse, undecided by their own 95 % intervals."""
    sides = [pair.gap(outcome).side() for pair in found if pair.entry is not pair.other]
    same = len(found) - len(sides)
    return sides.count(-1), sides.count(1), sides.count(0) + same


def ratio(interval: Interval | None, digits: int = 2) -> str:
    """A logarithmic gap as a ratio with its interval."""
    if interval is None:
        return "-"
    return written(interval.map(math.exp), digits)


def written(interval: Interval, digits: int = 2, unit: float = 1.0, sign: str = "") -> str:
    """``value [low, high]``; "n/a" without an interval."""
    if interval.low != interval.low:
        return "n/a"
    numbers = (interval.value * unit, interval.low * unit, interval.high * unit)
    value, low, high = (f"{number:{sign}.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def gap_text(pair: Pair, outcome: str) -> str:
    """A pair's gap: a ratio, or points of accuracy."""
    if outcome == "error" and pair.entry.task.loss != "mse":
        lower = pair.gap(outcome)
        higher = Interval(-lower.value, -lower.high, -lower.low)
        return written(higher, 1, 100.0, "+")
    return ratio(pair.gap(outcome))
