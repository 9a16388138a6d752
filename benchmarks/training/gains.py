"""What plans have gained: steps to a loss over the baseline's, by the baseline's log-variance.

    python -m benchmarks.training gains

writes `cerewrite/planning/gains.json`, which the program prints from (docs/TRAINING.md has the
trainings). Bins were set so that each has three baselines or more.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.training.evidence import Entry, find, gather
from benchmarks.training.store import Store

EDGES = (0.0, 0.25, 1.1, math.inf)
"""Ends of the bins, in the baseline's Var[log K]."""

LARGEST = 0.97
"""Designs whose Var[log K] is at most this share of the baseline's are plans that gain."""

PARAMS = (0.9, 1.02)
"""Designs of as many parameters as the baseline, about."""

DRAWS = 4000

Pair = tuple[Entry, Entry]


def pairs(store: Store) -> dict[str, list[Pair]]:
    """Designs that gain at equal parameters, with their baselines, by task."""
    entries = gather(store)
    found: dict[str, list[Pair]] = defaultdict(list)
    for entry in entries:
        base = find(entries, entry.task.name, entry.optimiser, "baseline")
        if base is None or base is entry:
            continue
        measure, params = (
            entry.figures[name] / base.figures[name] for name in ("log-variance", "params")
        )
        if measure <= LARGEST and PARAMS[0] <= params <= PARAMS[1]:
            found[entry.task.name].append((entry, base))
    return found


def table(store: Store, draws: int = DRAWS) -> list[dict[str, Any]]:
    """One row per bin: the geometric mean of the ratios with its bootstrap interval.

    Resampled are baselines, designs of each, and seeds of design and baseline.

    Args:
        store: the results of the study.
        draws: resamples.
    """
    rows = []
    every = pairs(store)
    for low, high in itertools.pairwise(EDGES):
        chosen = {
            task: items
            for task, items in every.items()
            if low <= items[0][1].figures["log-variance"] < high
        }
        listed = [pair for items in chosen.values() for pair in items]
        trained = {id(entry): len(entry.steps) for pair in listed for entry in pair}
        ratio, ends = _interval(list(chosen.values()), draws)
        rows.append(
            {
                "low": low,
                "high": high if math.isfinite(high) else None,
                "ratio": round(ratio, 3),
                "ends": [round(end, 3) for end in ends],
                "baselines": len(chosen),
                "designs": len({(e.task.name, str(e.shapes)) for e, _ in listed}),
                "trainings": sum(trained.values()),
            }
        )
    return rows


def _interval(groups: list[list[Pair]], draws: int) -> tuple[float, tuple[float, float]]:
    rng = np.random.default_rng(0)
    logs = [[(e.outcome("steps"), b.outcome("steps")) for e, b in items] for items in groups]

    def gap(items: list[tuple[Any, Any]], seeds: bool) -> float:
        means = [
            [rng.choice(x, len(x)).mean() if seeds else x.mean() for x in pair] for pair in items
        ]
        return float(np.mean([one - other for one, other in means]))

    found = []
    for _ in range(draws):
        some = [logs[i] for i in rng.integers(len(logs), size=len(logs))]
        some = [[items[i] for i in rng.integers(len(items), size=len(items))] for items in some]
        found.append(np.mean([gap(items, True) for items in some]))
    low, high = np.quantile(found, (0.025, 0.975))
    middle = np.mean([gap(items, False) for items in logs])
    return math.exp(middle), (math.exp(low), math.exp(high))


def text(store: Store) -> str:
    """The file of the package."""
    return json.dumps(table(store), indent=2) + "\n"
