"""What plans have gained: steps to a loss over the baseline's, by the baseline's log-variance.

    python -m benchmarks.training gains

writes `cerewrite/planning/gains.json`, which the program prints from. Counted are the designs of
docs/TRAINING.md and of docs/RACE.md that have about the baseline's parameters and a smaller
log-variance. Bins were set, before the races were counted, so that each has three baselines.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.evidence import find, gather
from benchmarks.training.race_report import Result, results
from benchmarks.training.races import BASELINE, FOLDER, HELD, PARAMS
from benchmarks.training.statistics import Array
from benchmarks.training.store import Store
from cerewrite.training.racing.schedule import FIRST_SEED, ROUNDS, Lane

EDGES = (0.0, 0.25, 1.1, math.inf)
"""Ends of the bins, in the baseline's Var[log K]."""

LARGEST = 0.97
"""Designs whose Var[log K] is at most this share of the baseline's are plans that gain."""

PARAMS_SHARE = (0.9, 1.02)
"""Designs of as many parameters as the baseline, about."""

DRAWS = 4000

FARTHEST = 4.0
"""A race's ratio of steps is read between its marks, and beyond them up to this much."""


@dataclass(frozen=True)
class Pair:
    """A design and its baseline, trained alike.

    Attributes:
        task: the baseline's task; optimisers of one network on one data set share it.
        design: its shapes.
        level: the baseline's Var[log K].
        own: log steps to a loss of each training of the design.
        other: the same of the baseline.
    """

    task: str
    design: str
    level: float
    own: Array
    other: Array


def pairs(store: Store, folder: Path = FOLDER) -> dict[str, list[Pair]]:
    """Designs that gain at equal parameters, with their baselines, by task."""
    found: dict[str, list[Pair]] = defaultdict(list)
    entries = gather(store)
    for entry in entries:
        base = find(entries, entry.task.name, entry.optimiser, "baseline")
        if base is None or base is entry:
            continue
        if _counts(entry.figures, base.figures):
            found[entry.task.name].append(
                Pair(
                    entry.task.name, str(entry.shapes), base.figures["log-variance"],
                    entry.outcome("steps"), base.outcome("steps"),
                )
            )  # fmt: skip
    for result in results(folder):
        for name in (HELD, PARAMS):
            if result.get(name) is not None and (pair := _raced(result, name)) is not None:
                found[pair.task].append(pair)
    return found


def _raced(result: Result, name: str) -> Pair | None:
    """A race's design: steps to the loss that the baseline of its seed ends with."""
    base, design = (result.header["designs"][key] for key in (BASELINE, name))
    figures = [{**item["figures"], "params": item["params"]} for item in (design, base)]
    if not _counts(*figures):
        return None
    end = result.schedule.round_steps(BASELINE, ROUNDS)[0]
    steps = [
        _steps(_curve(result, name, seed), _curve(result, BASELINE, seed)[end])
        for seed in range(result.schedule.seeds)
    ]
    task = result.header["task"].rpartition("-")[0].removeprefix("digits-")  # as the study's
    splits = str([(s["multiplicity"], s["widths"]) for s in design["plan"]["splits"]])
    other = np.full(len(steps), math.log(end))
    return Pair(task, splits, figures[1]["log-variance"], np.array(steps), other)


def _curve(result: Result, name: str, seed: int) -> dict[int, float]:
    """Training loss by steps; the mean over the tenth of the steps before."""
    entrant = result.get(name)
    assert entrant is not None and entrant.rate is not None
    lane = Lane(name, entrant.rate, FIRST_SEED + seed)
    points = result.records.points
    return {n: p.train for (at, n), p in points.items() if at == lane and p.train is not None}


def _steps(curve: Mapping[int, float], level: float) -> float:
    """Log of the steps to a loss: log-log lines between marks, and beyond the ends' two."""
    marks = [(math.log(steps), math.log(loss)) for steps, loss in sorted(curve.items())]
    spans = list(itertools.pairwise(marks))
    crossed = [span for span in spans if span[1][1] <= math.log(level) <= span[0][1]]
    outside = spans[0] if marks[0][1] <= math.log(level) else spans[-1]
    (x, y), (right, down) = crossed[0] if crossed else outside
    slope = min(-0.05, (down - y) / (right - x))
    found = x + (math.log(level) - y) / slope
    most = math.log(FARTHEST)
    return min(max(found, marks[0][0] - most), marks[-1][0] + most)


def _counts(design: Mapping[str, float], base: Mapping[str, float]) -> bool:
    measure, params = (design[name] / base[name] for name in ("log-variance", "params"))
    return measure <= LARGEST and PARAMS_SHARE[0] <= params <= PARAMS_SHARE[1]


def table(store: Store, draws: int = DRAWS, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """One row per bin: the geometric mean of the ratios with its bootstrap interval.

    Resampled are baselines, designs of each, and seeds of design and baseline.

    Args:
        store: the results of the study.
        draws: resamples.
        folder: of the races' records.
    """
    rows = []
    every = pairs(store, folder)
    for low, high in itertools.pairwise(EDGES):
        chosen = [items for items in every.values() if low <= items[0].level < high]
        listed = [pair for items in chosen for pair in items]
        bases = {(pair.task, pair.other.tobytes()): len(pair.other) for pair in listed}
        ratio, ends = _interval(chosen, draws)
        rows.append(
            {
                "low": low,
                "high": high if math.isfinite(high) else None,
                "ratio": round(ratio, 3),
                "ends": [round(end, 3) for end in ends],
                "baselines": len(chosen),
                "designs": len({(pair.task, pair.design) for pair in listed}),
                "trainings": sum(len(pair.own) for pair in listed) + sum(bases.values()),
            }
        )
    return rows


def _interval(groups: list[list[Pair]], draws: int) -> tuple[float, tuple[float, float]]:
    rng = np.random.default_rng(0)

    def mean(values: Array) -> float:
        return float(rng.choice(values, len(values)).mean())

    found = []
    for _ in range(draws):
        some = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        some = [[items[i] for i in rng.integers(len(items), size=len(items))] for items in some]
        gaps = [np.mean([mean(pair.own) - mean(pair.other) for pair in items]) for items in some]
        found.append(np.mean(gaps))
    low, high = np.quantile(found, (0.025, 0.975))
    middle = np.mean([np.mean([p.own.mean() - p.other.mean() for p in items]) for items in groups])
    return math.exp(middle), (math.exp(low), math.exp(high))


def text(store: Store) -> str:
    """The file of the package."""
    return json.dumps(table(store), indent=2) + "\n"
