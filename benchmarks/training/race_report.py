"""docs/RACE.md: every number in it comes from the races' records."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.races import (
    DUAL,
    FOLDER,
    HELD,
    PARAMS,
    SAME_PARAMS,
    SAME_TIME,
    schedule_of,
    tasks,
)
from cerewrite.ir.raced import Entrant, Interval, Standing
from cerewrite.reporter.raced import changed
from cerewrite.training.racing.intervals import mean_interval, ratio_interval
from cerewrite.training.racing.records import NAME, Records
from cerewrite.training.racing.results import Runner, entrants
from cerewrite.training.racing.schedule import FIRST_SEED, ROUNDS, Lane, Schedule

HEAD = """# Races on real data

Written by `python -m benchmarks.training race-report` from `benchmarks/training/races/`; do not
edit. `python -m benchmarks.training race` runs what is not there yet. Every baseline is a plain
`nn.Module`; plans are the product's (closed form, `--gain he`), the baseline's every cost held
or its parameters alone. Rates are swept by successive halving on one seed by training loss, the
same grid for every design; the finals have {seeds} fresh seeds per design and no schedule.
Brackets are 95 % intervals over seeds, design and baseline paired by seed; the choice of rate is
not in them, nor that many are looked at: of twenty that hold nothing one looks like something.

**Seconds** are steps times the step's time: the median of {runs} interleaved runs, in processor
time of one thread, because the machine was shared with other work. A whole step is timed, the
optimiser's part too. A loss at equal seconds is the one after as many steps as fit into the time
of the baseline's whole training. "Held" holds layers' times by the planner's own clock, which on
a shared machine is noisy: its measured step is in the tables.
"""

PREDICTIONS = """## What was expected, written down before the runs

1. **Held** costs nothing and gains little: training loss at equal steps between 0.9 and 1.1 of
   the baseline's at depth 6, 0.7 to 1.0 at depth 16; at equal seconds no interval beyond 1 on
   either side but for at most one task.
2. **Parameters only** fits faster per step on deep nets: training loss at equal steps 0.2 to 0.6
   on digits at depth 16, 0.4 to 0.9 at depth 6, 0.8 to 1.0 on Fashion-MNIST at depth 16 and
   about 1.0 at depth 6. Its step takes 1.3 to 3 times as long, so that at equal seconds it wins
   nowhere but perhaps on digits at depth 16.
3. **The plain net of its step time** gains less per step than parameters only at depth 16, as
   much at depth 6; at equal seconds it is no better than the baseline.
4. **Dual** against the plain net of its parameters: a lower training loss at equal steps at depth
   16 (0.6 to 0.95), none beyond the interval at depth 6, none anywhere at equal seconds.
5. **Held-out accuracy**: beyond the interval nowhere, but perhaps on digits at depth 16.
6. The two tabular sets show nothing: they are fitted within the noise of the seeds.
7. A network of Var[log K] below 0.1 (digits, 4 x 256; added after the first four races and
   before it ran): a training loss within 0.7 to 1.1 at equal steps, none lower at equal seconds.
"""

OUTCOME = """## What came of it

1. Not tested: on this processor **no plan that holds the step's time gains** on any of these
   networks. They are small: parameters only takes 1.7 to 2.5 times the step.
2. Parameters only fits faster per step on digits at every depth, depth 6 more than expected, on
   breast cancer, and a little on Fashion-MNIST at depth 16; not on Fashion-MNIST at depth 6 nor
   on diabetes. At equal seconds its training loss is lower on one task, digits at depth 6 with
   AdamW, where depth 16 was expected, and higher on more of them.
3. The plain net of its step time, 2 to 9 times the parameters, gains as much per step, at depth
   16 too, against the expectation; at equal seconds its training loss is lower nowhere, as
   expected.
4. The dual beats the plain net of its parameters per step on digits at depth 16, more than
   expected, and at depth 6, against the expectation; not beyond 6 % on Fashion-MNIST, not on the
   tabular sets, and of the wide network it is worse. At equal seconds its training loss is lower
   once.
5. Accuracy of parameters only at equal steps is beyond the interval at depth 16 with SGD alone, on
   digits and on Fashion-MNIST; at equal seconds it is lower on Fashion-MNIST in all three races.
6. Wrong on breast cancer: both losses of parameters only are lower at equal steps, and the
   held-out one at equal seconds too, where the baseline has begun to overfit. Right on diabetes
   at equal steps; at equal seconds held-out losses are lower for fewer steps alone.
7. Wrong: the wide network fits in fewer steps too, so that a small Var[log K] does not say that
   nothing is gained per step.
"""


@dataclass(frozen=True)
class Result:
    """One race.

    Attributes:
        title: of its task.
        header: as its records begin.
        schedule: who trained.
        records: its points.
        entrants: every design against the baseline.
    """

    title: str
    header: Mapping[str, Any]
    schedule: Schedule
    records: Records
    entrants: tuple[Entrant, ...]

    def get(self, name: str) -> Entrant | None:
        """A design by its name."""
        return next((item for item in self.entrants if item.name == name), None)


def results(folder: Path = FOLDER) -> list[Result]:
    """Every race whose finals are complete, in the order of the tasks."""
    found = []
    for name, task in tasks().items():
        if not (folder / name / NAME).exists():
            continue
        records = Records(folder / name)
        if records.header is None:
            continue
        schedule = schedule_of(records.header)
        if schedule.rounds(records.points) < ROUNDS:
            continue
        designs = records.header["designs"]
        runners = {n: Runner(n, "", item["params"]) for n, item in designs.items()}
        listed, _ = entrants(schedule, records.points, runners)
        found.append(Result(task.title, records.header, schedule, records, listed))
    return found


def document(folder: Path = FOLDER) -> str:
    """The whole text."""
    from benchmarks.training.races import RUNS, SEEDS

    found = results(folder)
    parts = [HEAD.format(seeds=SEEDS, runs=RUNS), *_short(found), PREDICTIONS, OUTCOME]
    for result in found:
        parts += _task(result)
    return "\n".join(parts).rstrip() + "\n"


def _short(found: list[Result]) -> list[str]:
    """Over all tasks: geometric means, with intervals over tasks, and how many are decided."""
    lines = [
        "## In short",
        "",
        f"{len(found)} races, {sum(len(_lanes(r)) for r in found)} trainings. Geometric means of "
        "the tasks' ratios with Student intervals over tasks; in brackets behind, tasks below 1, "
        "above 1 and undecided by their own intervals.",
        "",
        "| design | step | training loss, equal steps | equal seconds | held-out loss, equal steps "
        "| equal seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines[2] = textwrap.fill(lines[2], 98)
    for name in (HELD, PARAMS, SAME_TIME, DUAL, SAME_PARAMS):
        rows = [(r, item) for r in found if (item := r.get(name)) is not None]
        if rows:
            steps = [math.log(item.step / r.entrants[0].step) for r, item in rows]
            cells = [_over([item for _, item in rows], kind, what)
                     for what in ("train_change", "loss_change")
                     for kind in ("at_steps", "at_seconds")]  # fmt: skip
            step = math.exp(math.fsum(steps) / len(steps))
            lines.append(f"| {name} ({len(rows)}) | {step:.2f} | " + " | ".join(cells) + " |")
    return [*lines, "", *_duals(found), ""]


def _over(items: list[Entrant], kind: str, what: str) -> str:
    if len(items) < 2:
        return "-"
    changes: list[Interval] = [getattr(getattr(item, kind), what) for item in items]
    whole = mean_interval([math.log(change.value) for change in changes])
    low, high = (math.exp(max(-50.0, min(50.0, end))) for end in (whole.low, whole.high))
    text = changed(Interval(math.exp(whole.value), low, high), ratios=True)
    below = sum(change.high < 1 for change in changes)
    above = sum(change.low > 1 for change in changes)
    return f"{text} ({below}, {above}, {len(changes) - below - above})"


def _duals(found: list[Result]) -> list[str]:
    """The dual against the plain net of its parameters."""
    lines = [
        "The dual over the plain net of its parameters, pairs of the same seed:",
        "",
        "| task | training loss, equal steps | held-out loss, equal steps | training loss, equal "
        "seconds | held-out loss, equal seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in found:
        if result.get(DUAL) is None or result.get(SAME_PARAMS) is None:
            continue
        cells = [_against(result, kind, what) for kind in (0, 1) for what in ("train", "loss")]
        lines.append(f"| {result.title} | " + " | ".join(cells) + " |")
    return lines


def _against(result: Result, kind: int, what: str) -> str:
    """Ratio of a loss of the dual and of the plain net: both at the baseline's steps or seconds."""
    columns = []
    for name in (DUAL, SAME_PARAMS):
        entrant = result.get(name)
        assert entrant is not None and entrant.rate is not None
        steps = result.schedule.round_steps(name, ROUNDS)[kind]
        columns.append([
            getattr(result.records.points[Lane(name, entrant.rate, FIRST_SEED + seed), steps], what)
            for seed in range(result.schedule.seeds)
        ])  # fmt: skip
    pairs = [(a, b) for a, b in zip(*columns, strict=True) if a is not None and b is not None]
    change = ratio_interval([a for a, _ in pairs], [b for _, b in pairs])
    return "-" if change is None else changed(change, ratios=True)


def _task(result: Result) -> list[str]:
    base = result.entrants[0]
    assert base.at_steps is not None and base.at_seconds is not None
    lines = [
        f"## {result.title}",
        "",
        f"{base.at_steps.steps} steps; the baseline's step takes {1e3 * base.step:.2f} ms. The "
        "baseline's rows have its own means,",
        "the others ratios to them, and accuracy in points above it."
        + ("" if result.get(HELD) else " No plan that holds every cost gains: none is raced."),
        "",
        "| design | parameters | log-variance | step | rate | at equal | steps | training loss "
        "| held-out loss | accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for item in result.entrants:
        for label, standing in (("steps", item.at_steps), ("seconds", item.at_seconds)):
            if standing is not None and (label == "steps" or item is not base):
                lines.append(_row(result, item, label, standing))
    return [*lines, ""]


def _row(result: Result, item: Entrant, label: str, at: Standing) -> str:
    design = result.header["designs"][item.name]
    figure = design.get("figures", {}).get("log-variance")
    known = f"{figure:.3g}" if figure is not None else "-"
    first = (
        f"{item.name}{_shape(design)}", f"{item.params:,}", known,
        f"{item.step / result.entrants[0].step:.2f}",
        f"{item.rate:g}{' (edge)' if item.edge else ''}",
    )  # fmt: skip
    cells = first if label == "steps" else ("",) * len(first)
    if item is result.entrants[0]:
        accuracy = "-" if at.metric is None else f"{100 * at.metric:.1f} %"
        values = (f"{at.train:.3g}", f"{at.loss:.3g}", accuracy)
    else:
        gap = at.metric_change
        points = (
            "-"
            if gap is None
            else (f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]")
        )
        values = (
            changed(at.train_change, ratios=True), changed(at.loss_change, ratios=True), points
        )  # fmt: skip
    if item.failed and label == "steps":
        values = (*values[:2], f"{values[2]}; {item.failed} of {item.runs} diverged")
    shown = "steps, seconds" if item is result.entrants[0] else label
    return "| " + " | ".join((*cells, shown, str(at.steps), *values)) + " |"


def _shape(design: Mapping[str, Any]) -> str:
    if "plan" in design:
        splits = design["plan"]["splits"]
        widths = [w for split in splits for w in split["widths"]]
        low, high = min(widths), max(widths)
        members = ", ".join(dict.fromkeys(str(split["multiplicity"]) for split in splits))
        return f", {members} x {low if low == high else f'{low} to {high}'}"
    return f", width {design['width']}"


def _lanes(result: Result) -> set[Lane]:
    return {lane for lane, _ in result.records.points}
