"""What a race found: tables at equal steps and at equal seconds, who won, the data of a chart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cerewrite.ir.raced import Entrant, Interval, Race, Standing
from cerewrite.reporter.figures import count, number, plural
from cerewrite.reporter.section import Section
from cerewrite.reporter.timed import seconds


def race_data(race: Race) -> list[dict[str, Any]]:
    """Every finalist's finite held-out losses as it trained: what charts are drawn from."""
    return [
        {"name": item.name, "steps": at.steps, "seconds": at.seconds, "loss": at.loss}
        for item in race.entrants
        for at in item.curve
        if math.isfinite(at.loss)
    ]


def race_sections(race: Race) -> list[Section]:
    """The designs, both comparisons, and the verdict."""
    first = race.entrants[0]
    parts = [_designs(race)]
    if first.at_steps is not None and first.at_seconds is not None:
        steps = f"At equal steps: {count(first.at_steps.steps)} of each"
        parts.append(_compared(race, steps, lambda entrant: entrant.at_steps))
        time = f"At equal seconds: {seconds(first.at_seconds.seconds)} of training each"
        parts.append(_compared(race, time, lambda entrant: entrant.at_seconds))
    parts.append(
        Section(title=f"Verdict, by held-out loss at equal {race.by}", lines=_verdict(race))
    )
    return parts


def _designs(race: Race) -> Section:
    base = race.entrants[0].step
    rows = []
    for item in race.entrants:
        edge = " (edge)" if item.edge else ""
        rate = "-" if item.rate is None else f"{item.rate:g}{edge}"
        timed = math.isfinite(item.step)
        shown = (seconds(item.step), f"{item.step / base:.2f}x") if timed else ("-", "-")
        ran = f"{item.runs - item.failed} of {item.runs}" if item.runs else "-"
        rows.append((item.name, count(item.params), *shown, rate, ran, item.out or item.option))
    batch = f"batches of {race.batch}" if race.batch else "batches as given"
    return Section(
        title=f"{race.model}: a race of {plural(race.trainings, 'training')}",
        facts=(
            ("training", f"{race.optimiser}, constant rates, {batch}"),
            ("time", f"{race.spent:.3g} s of {race.seconds:.3g} s"),
        ),
        columns=("design", ">params", ">step", ">ratio", ">rate", ">finals", ""),
        rows=tuple(rows),
    )


def _compared(race: Race, title: str, pick: Callable[[Entrant], Standing | None]) -> Section:
    rows = []
    for item in race.entrants:
        found = pick(item)
        if found is None:
            continue
        row = [item.name, count(found.steps)]
        if item is race.entrants[0]:
            accuracy = "-" if found.metric is None else f"{100 * found.metric:.2f} %"
            row += [number(found.train), number(found.loss), accuracy]
        else:
            losses = (found.train_change, found.loss_change)
            row += [changed(change, ratios=race.ratios) for change in losses]
            row.append(_points(found.metric_change))
        rows.append(tuple(row))
    kind = "ratios to them" if race.ratios else "differences from them"
    return Section(
        title=title,
        columns=("design", ">steps", ">training loss", ">held-out loss", ">accuracy"),
        rows=tuple(rows),
        lines=(f"The baseline's row has its own means, the others {kind}, accuracy in points.",),
    )


def changed(change: Interval, *, ratios: bool) -> str:
    """A change of a loss with its 95 % interval.

    Example:
        >>> changed(Interval(0.5, 0.4, 0.6), ratios=True)
        '0.50 [0.40, 0.60]'
    """
    form = ".2f" if ratios else "+.3g"
    return f"{change.value:{form}} [{change.low:{form}}, {change.high:{form}}]"


def _points(change: Interval | None) -> str:
    if change is None:
        return "-"
    value, low, high = (f"{100 * x:+.1f}" for x in (change.value, change.low, change.high))
    return f"{value} [{low}, {high}]"


def _verdict(race: Race) -> tuple[str, ...]:
    lines = [race.verdict[:1].upper() + race.verdict[1:] + "."]
    edges = [item.name for item in race.entrants if item.edge]
    if edges:
        lines.append(
            f"The rate of {', '.join(edges)} lies at an end of those tried: --rates may do better."
        )
    failed = [f"{item.failed} of {item.name}" for item in race.entrants if item.failed]
    if failed:
        lines.append(
            f"Trainings that diverged in the finals: {', '.join(failed)}; what is compared are "
            "the others, and a design with any cannot win."
        )
    lines.append(
        "Brackets: 95 % intervals over seeds, design and baseline paired by seed; the choice of "
        "the rate is not in them."
    )
    return (*lines, *race.notes)
