"""Run the study: for every design, sweep the rates on some seeds, then train on others."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

from benchmarks.training.designs import Design, analyse, build, choose, figures
from benchmarks.training.stacked import Outcome, train
from benchmarks.training.store import Record, Store
from benchmarks.training.tasks import OPTIMISERS, TASKS, Task
from cerewrite.ir import Analysis

SWEEP_SEEDS = (0, 1)
FIRST_SEED = 100
"""Seeds of the reported runs start here: none of them helped to choose a rate."""

LEVELS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.03)
"""Running losses, relative to nothing, that steps are counted to."""


def run(tasks: Sequence[Task], seeds: int, store: Store) -> None:
    """Do what the store does not hold yet.

    Tasks take turns, so that an interrupted study has seen something of each.

    Args:
        tasks: what to study.
        seeds: reported runs per design and optimiser.
        store: where results go.
    """
    queues = []
    for task in tasks:
        analysis = analyse(task)
        designs = choose(analysis)
        _withdraw(task, designs, store)
        for design in designs:
            store.add(_describe(task, analysis, design))
        queues.append([(task, analysis, design) for design in designs])
    for turn in itertools.zip_longest(*queues):
        for job in filter(None, turn):
            for optimiser in OPTIMISERS:
                _measure(*job, optimiser, seeds, store)


def refresh(store: Store) -> None:
    """Figures of every stored design by this version's closed form; nothing is trained."""
    analyses: dict[str, Analysis] = {}
    for record in store.of("design"):
        name = record["task"]
        if name not in analyses:
            analyses[name] = analyse(TASKS[name])
        shapes = tuple((region, m, tuple(widths)) for region, m, widths in record["shapes"])
        found = figures(analyses[name], Design((), shapes))
        store.add(record | {"figures": found})
    store.compact()


def _withdraw(task: Task, designs: Sequence[Design], store: Store) -> None:
    """Designs that nobody chooses any more (the planner has changed) lose their labels."""
    keys = {design.key for design in designs}
    for record in store.of("design"):
        if record["task"] == task.name and record["design"] not in keys:
            store.add(record | {"labels": []})


def _describe(task: Task, analysis: Analysis, design: Design) -> Record:
    return {
        "kind": "design",
        "task": task.name,
        "design": design.key,
        "labels": design.labels,
        "shapes": design.shapes,
        "figures": figures(analysis, design),
    }


def _measure(
    task: Task, analysis: Analysis, design: Design, optimiser: str, seeds: int, store: Store
) -> None:
    """Sweep, choose, train; each phase is one record."""
    key = {"kind": "stack", "task": task.name, "design": design.key, "optimiser": optimiser}
    sweep = store.get(**key, phase="sweep")
    if sweep is None:
        pairs = [(seed, rate) for rate in task.rates[optimiser] for seed in SWEEP_SEEDS]
        sweep = _stack(task, analysis, design, optimiser, pairs) | key | {"phase": "sweep"}
        store.add(sweep)
    final = store.get(**key, phase="final")
    if final is None or len(final["seeds"]) < seeds:
        rate = best_rate(sweep, task.data().chance)
        pairs = [(FIRST_SEED + index, rate) for index in range(seeds)]
        store.add(_stack(task, analysis, design, optimiser, pairs) | key | {"phase": "final"})


def best_rate(sweep: Record, chance: float) -> float:
    """The rate with the least geometric mean of the final training loss over the sweep's seeds.

    A loss that is not finite, or above that of a constant prediction, counts as the latter.
    """
    scores: dict[float, float] = {}
    for rate, loss in zip(sweep["rates"], sweep["final"], strict=True):
        known = loss if loss is not None and math.isfinite(loss) else chance
        scores[rate] = scores.get(rate, 0.0) + math.log(min(known, chance))
    return min(scores, key=scores.__getitem__)


def _stack(
    task: Task,
    analysis: Analysis,
    design: Design,
    optimiser: str,
    pairs: Sequence[tuple[int, float]],
) -> Record:
    """Train one copy per (seed, rate), all at once."""
    began = time.process_time()
    seeds, rates = [seed for seed, _ in pairs], [rate for _, rate in pairs]
    built = dict(zip(sorted(set(seeds)), build(task, analysis, design, sorted(set(seeds))),
                     strict=True))  # fmt: skip
    outcomes = train(
        [built[seed] for seed in seeds], seeds, rates, task.data(), task.recipe(optimiser)
    )
    return _record(task, outcomes) | {
        "seeds": seeds,
        "rates": rates,
        "seconds": time.process_time() - began,
    }


def _record(task: Task, outcomes: Sequence[Outcome]) -> Record:
    levels = [level for level in LEVELS if level < task.data().chance]
    return {
        "final": [outcome.final for outcome in outcomes],
        "test_loss": [outcome.test_loss for outcome in outcomes],
        "accuracy": [outcome.accuracy for outcome in outcomes],
        "steps": {str(v): [outcome.steps_to(v) for outcome in outcomes] for v in levels},
    }
