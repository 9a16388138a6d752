"""docs/TRAINING.md: every number and every verdict in it comes from the results file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from benchmarks.training.compare import (
    CHOICES,
    gap_text,
    over_tasks,
    pairs,
    parameter_share,
    ratio,
    written,
)
from benchmarks.training.correlations import FEWEST, correlations
from benchmarks.training.evidence import OUTCOMES, Entry, find, gather
from benchmarks.training.regret import regret_lines
from benchmarks.training.statistics import Interval, share
from benchmarks.training.store import Store
from benchmarks.training.study import FIRST_SEED, SWEEP_SEEDS
from benchmarks.training.tasks import OPTIMISERS, TASKS
from benchmarks.training.verdicts import verdicts

NAMES = {"sgd": "SGD", "adam": "Adam"}

DRAWS = 500
"""Bootstrap resamples behind a correlation's interval."""


def document(store: Store, draws: int = DRAWS) -> str:
    """The whole text.

    Args:
        store: the results.
        draws: bootstrap resamples behind each correlation's interval.
    """
    entries = gather(store)
    table, answers = correlations(entries, draws)
    parts = [
        HEAD,
        ["## In short", "", *verdicts(entries, answers), ""],
        _setting(entries),
        _overall(entries),
        _steadiness(entries),
        table,
        regret_lines(entries, FEWEST, draws),
        ["## Task by task", "", *TASK_TEXT],
        *(_task(entries, name) for name in dict.fromkeys(e.task.name for e in entries)),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


HEAD = [
    "# Does the rewritten model train better?",
    "",
    "Written by `python -m benchmarks.training report` from `benchmarks/training/results.jsonl`;",
    "do not edit. Every baseline is a plain `nn.Module`; every other design was analysed, planned",
    "and built by cerewrite, members drawn by its own `reinitialise` pass. Brackets hold 95 %",
    "intervals; they do not cover the choice of the learning rate, nor that many intervals are",
    "looked at: of twenty that hold nothing, one is expected to look like something.",
    "",
]

TASK_TEXT = [
    "Steps and loss as ratios to the baseline's geometric mean (below 1 is better), accuracy as",
    "points above the baseline's (test loss, as a ratio, for the regression); Welch intervals",
    "over seeds. The baseline's row has its own means. `failed` counts reported runs whose final",
    "loss is not finite or above 0.9 of a constant's; `(edge)` marks a rate at an end of its",
    "sweep. A run that did not reach the target counts as one step more than it had, so a ratio",
    "with many such runs understates the difference; `reached` counts those that did.",
    "",
]


def _setting(entries: Sequence[Entry]) -> list[str]:
    """What was run."""
    records = {id(r): r for entry in entries for r in (entry.sweep, entry.final)}.values()
    designs = len({(entry.task.name, str(entry.shapes)) for entry in entries})
    runs = sum(len(record["seeds"]) for record in records)
    seeds = min(len(entry.final["seeds"]) for entry in entries)
    minutes = sum(record["seconds"] for record in records) / 60
    edge = sum(entry.at_edge for entry in entries)
    text = (
        f"{designs} designs of {len({e.task.name for e in entries})} baselines, each with SGD "
        f"(momentum 0.9) and Adam: {runs} trainings, {minutes:.0f} minutes of one core. For every "
        f"design and optimiser the rate was swept on {len(SWEEP_SEEDS)} seeds (least geometric "
        "mean of the final training loss); the reported runs use that rate and "
        f"{seeds} or more other seeds (from {FIRST_SEED}). {edge} of {len(entries)} chosen rates "
        "lie at an end of their sweep. Batches of 32, no schedule, no weight decay, no "
        "augmentation. Steps, targets and rates were set after pilot runs of the baselines and of "
        "one ensemble, some of them with the reported seeds. All copies of a design train at once "
        "(`torch.func.vmap`), which the tests hold against separate runs with `torch.optim`. "
        "Everything is counted in steps, not seconds: many narrow members take longer per step."
    )
    lines = [
        "## What was run",
        "",
        *textwrap.wrap(text, 98, break_on_hyphens=False),
        "",
        "| task | data and baseline | parameters | steps | target loss | rates SGD | rates Adam |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(entry.task.name for entry in entries):
        task, base = TASKS[name], find(entries, name, OPTIMISERS[0], "baseline")
        assert base is not None, name
        rates = (", ".join(f"{rate:g}" for rate in task.rates[o]) for o in OPTIMISERS)
        lines.append(
            f"| `{name}` | {task.title} | {base.figures['params']:,.0f} | {task.steps} "
            f"| {task.target:g} | " + " | ".join(rates) + " |"
        )
    return [
        *lines,
        "",
        "All measures are cerewrite's closed form (`--gain he`), which takes",
        "maps as spatially constant: for the CNNs they rank designs of one baseline, and their",
        "values are upper bounds. By hand: that many members (8 and 32 are ResNeXt's style), the",
        "widest that fit the baseline's parameters, all widths equal, at least 4. A task's designs",
        "may be fewer: the study was stopped before the last of them were trained. Choices are",
        "those of the version that ran; its closed form has changed since (`res4x16` and",
        "`texture4x32` by 11 to 27 %), and the measures are recomputed by `figures`, so that a",
        "choice need not be the least of today's. A larger study:",
        "`python -m benchmarks.training run --seeds 20`, then `report`; it goes on where it was",
        "stopped, repeats what has fewer seeds, and `--tasks 'mlp*'` picks tasks.",
        "",
    ]


def _overall(entries: Sequence[Entry]) -> list[str]:
    """Each choice against the baselines, mean over tasks."""
    lines = [
        "## Against the baseline, over all tasks",
        "",
        "Geometric means over tasks of the ratio to the baseline, and the mean gain of accuracy",
        "in points (classifications only); Student's intervals with the tasks as the sample.",
        "",
        "| design | tasks | parameters | optimiser | steps to target | final loss "
        "| accuracy, points |",
        "| --- " * 7 + "|",
    ]
    for label, title in CHOICES.items():
        for optimiser in OPTIMISERS:
            found = pairs(entries, label, optimiser=optimiser)
            if not found:
                continue
            error = over_tasks(found, "error")
            gain = error and Interval(-error.value, -error.high, -error.low)
            cells = [
                title,
                str(len(found)),
                f"{parameter_share(found):.2f}",
                NAMES[optimiser],
                ratio(over_tasks(found, "steps")),
                ratio(over_tasks(found, "loss")),
                written(gain, 1, 100.0, "+") if gain else "-",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _steadiness(entries: Sequence[Entry]) -> list[str]:
    """Failed runs and spread over seeds."""
    lines = [
        "## Steadiness",
        "",
        "Share of runs that fail (final loss not finite, or above 0.9 of a constant's), Wilson",
        "intervals over all tasks: in the reported runs at the chosen rate, and in the sweep at",
        "all rates, which shows how wide the range of usable rates is. Spread: geometric mean over",
        "tasks of the ratio, to the baseline's, of the standard deviation over seeds of log final",
        "loss.",
        "",
        "| design | tasks | optimiser | failed, reported | failed, sweep | spread ratio |",
        "| --- " * 6 + "|",
    ]
    for label, title in {"baseline": "baseline", **CHOICES}.items():
        for optimiser in OPTIMISERS:
            found = pairs(entries, label, optimiser=optimiser)
            if not found:
                continue
            cells = [title, str(len(found)), NAMES[optimiser]]
            for phase in ("final", "sweep"):
                counts = [pair.entry.failed(phase) for pair in found]
                total = share(sum(c[0] for c in counts), sum(c[1] for c in counts))
                cells.append(written(total, 0, 100.0) + " %")
            cells.append("1" if label == "baseline" else ratio(over_tasks(found, "spread")))
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _task(entries: Sequence[Entry], name: str) -> list[str]:
    task = TASKS[name]
    regression = task.loss == "mse"
    lines = [
        f"### `{name}`: {task.title}",
        "",
        "| design | members x widths | log-variance | nu | optimiser, rate | steps to "
        f"{task.target:g} | reached | final loss | {'test loss' if regression else 'accuracy'} "
        "| spread | failed |",
        "| --- " * 11 + "|",
    ]
    for label, title in {"baseline": "baseline", **CHOICES}.items():
        for pair in pairs([e for e in entries if e.task.name == name], label):
            gaps = None
            if label != "baseline":
                gaps = [gap_text(pair, outcome) for outcome in OUTCOMES]
            lines.append(_row(pair.entry, title, gaps))
    return [*lines, ""]


def _row(entry: Entry, title: str, gaps: Sequence[str] | None) -> str:
    first = entry.optimiser == OPTIMISERS[0]
    figures = entry.figures
    edge = " (edge)" if entry.at_edge else ""
    bad, runs = entry.failed("final")
    own = [
        f"{math.exp(entry.outcome('steps').mean()):.0f}",
        f"{math.exp(entry.outcome('loss').mean()):.3g}",
        f"{math.exp(entry.outcome('error').mean()):.3g}"
        if entry.task.loss == "mse"
        else f"{100 * entry.accuracy.mean():.1f} %",
    ]
    steps, loss, error = own if gaps is None else gaps
    cells = [
        title if first else "",
        _shape(entry) if first else "",
        f"{figures['log-variance']:.3g}" if first else "",
        f"{figures['nu']:.3g}" if first else "",
        f"{NAMES[entry.optimiser]} {entry.rate:g}{edge}",
        steps,
        f"{int(entry.reached.sum())}/{runs}",
        loss,
        error,
        f"{entry.outcome('loss').std(ddof=1):.2f}",
        f"{bad}/{runs}",
    ]
    return "| " + " | ".join(cells) + " |"


def _shape(entry: Entry) -> str:
    """Members and the range of widths; of the first region where there are several."""
    if not entry.shapes:
        return "as it is"
    _, members, widths = entry.shapes[0]
    low, high = min(widths), max(widths)
    return f"{members} x {low}" + ("" if low == high else f" to {high}")
