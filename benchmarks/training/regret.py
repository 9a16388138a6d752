"""What a predictor's pick costs: its outcome over that of the best design of its baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.training.compare import ratio
from benchmarks.training.correlate import MEASURES, complete, predictor
from benchmarks.training.evidence import TITLES, Entry
from benchmarks.training.statistics import Array, Interval, bootstrap
from benchmarks.training.tasks import OPTIMISERS

NAMES = {"sgd": "SGD", "adam": "Adam"}
PREDICTORS = (*MEASURES, "1 / total width")


def regrets(
    entries: Sequence[Entry], names: Sequence[str], outcome: str, draws: int
) -> dict[str, Interval]:
    """Mean over baselines of the log outcome of each predictor's pick, less the best design's.

    Args:
        entries: designs of one optimiser, of which each predictor picks one per baseline: that
            of its least value, the first of equal ones.
        names: predictors.
        outcome: ``steps`` or ``loss``, which are logarithms.
        draws: bootstrap resamples of baselines and seeds; the picks do not depend on them.

    Returns:
        per predictor, and under ``"a - b"`` their differences.
    """
    groups = np.array([entry.task.name for entry in entries])
    runs = min(len(entry.final["seeds"]) for entry in entries)
    outcomes = np.array([entry.outcome(outcome)[:runs] for entry in entries])
    table = {name: predictor(entries, name) for name in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]

    def statistic(index: Array, label: Array, y: Array) -> list[float]:
        each = [label == value for value in np.unique(label)]
        found = {
            name: float(np.mean([y[g][np.argmin(x[index][g])] - y[g].min() for g in each]))
            for name, x in table.items()
        }
        return [*found.values(), *(found[a] - found[b] for a, b in pairs)]

    result = bootstrap(statistic, groups, outcomes, draws=draws, designs=False)
    return dict(zip([*names, *(f"{a} - {b}" for a, b in pairs)], result, strict=True))


def regret_lines(entries: Sequence[Entry], fewest: int, draws: int) -> list[str]:
    """The document's section.

    Args:
        entries: everything that was trained.
        fewest: designs of equal parameters that a baseline must have.
        draws: bootstrap resamples.
    """
    equal = complete([entry for entry in entries if entry.equal_budget], fewest)
    cases = [(o, outcome) for o in OPTIMISERS for outcome in ("steps", "loss")]
    found = {
        (o, outcome): regrets([e for e in equal if e.optimiser == o], PREDICTORS, outcome, draws)
        for o, outcome in cases
    }
    heads = [f"{TITLES[outcome]}, {NAMES[o]}" for o, outcome in cases]
    lines = [
        "## What a predictor's pick costs",
        "",
        "Of the designs of equal parameters of each baseline the one of least measure, against the",
        "best of them: geometric mean over baselines of the ratio of steps, and of final losses;",
        "1 is the best there is. Bootstrap over baselines and seeds: noise makes the best design",
        "look better than it is, so that intervals of ratios lie above their estimates, and",
        "differences between predictors are what to read. `sign-variance` was found on these "
        "tasks.",
        "",
        "| predictor | " + " | ".join(heads) + " |",
        "| --- " * (len(heads) + 1) + "|",
    ]
    for name in PREDICTORS:
        cells = [ratio(found[case][name]) for case in cases]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Ratio of the regrets of `sign-variance` and each other predictor (below 1: it picks",
        "better):",
        "",
        "| against | " + " | ".join(heads) + " |",
        "| --- " * (len(heads) + 1) + "|",
    ]
    for name in (name for name in PREDICTORS if name != "sign-variance"):
        cells = [ratio(_against(found[case], "sign-variance", name)) for case in cases]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _against(row: dict[str, Interval], first: str, second: str) -> Interval:
    known = row.get(f"{first} - {second}")
    if known is not None:
        return known
    other = row[f"{second} - {first}"]
    return Interval(-other.value, -other.high, -other.low)
