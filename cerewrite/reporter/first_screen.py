"""The first screen: what was bought, at what cost, what to do next, in 24 lines of 80 columns."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from cerewrite import ir
from cerewrite.errors import printable
from cerewrite.planning.budgets import changed_cost
from cerewrite.reporter.figures import count, members, plural, ratio, scaled, with_error
from cerewrite.reporter.measured import figure, title
from cerewrite.reporter.planned import COUNTED, before_and_after, written
from cerewrite.reporter.proved import alarms, kept_promise
from cerewrite.reporter.timed import slower

ROWS = 21
"""Lines: the command says in two more where options came from and what it wrote."""

COLUMNS = 79
LABEL = 10
GAINS = 0.99
"""A row of the menu is shown if its measure is below this part of the chosen row's."""

SHOWN = 3
"""Regions that are named."""


def print_first_screen(
    record: ir.Plan | ir.Report,
    console: Console,
    *,
    model: str = "MODEL",
    then: tuple[str, ...] = (),
) -> None:
    """Print what a plan or a conversion came to.

    Args:
        record: the plan, or a report that has one.
        console: where to.
        model: spec of the model, for the commands that are advised.
        then: what to do next, each with its command.
    """
    for line in first_screen(record, model, then):
        failed = "FAILED" in line or "SLOWER" in line or "WORSE" in line
        console.print(Text(line, "bold red" if failed else ""), soft_wrap=True)


def first_screen(
    record: ir.Plan | ir.Report, model: str = "MODEL", then: tuple[str, ...] = ()
) -> list[str]:
    """Its lines: at most 21 of at most 79 columns, whatever the model is called.

    Args:
        record: a plan, or a report that has one.
        model: spec of the model, for the commands that are advised.
        then: what to do next, each with its command.
    """
    report = record if isinstance(record, ir.Report) else None
    plan = record.plan if isinstance(record, ir.Report) else record
    assert plan is not None, "a report of a conversion has its plan"
    head = ["", _cut(_headline(plan)), *_labelled("bought", _bought(plan, report))]
    head += _labelled("cost", _costs(plan, report))
    foot = [*_labelled("more", _dearer(plan)), *_labelled("left", _left(plan, model))[:2]]
    foot += _labelled("next", [*then, _rest(report)])
    notes = _notes(plan, report)
    room = ROWS - len(head) - len(foot)
    return [*head, *_fitted(notes, room), *foot]


def _headline(plan: ir.Plan) -> str:
    if not plan.splits:
        return f"{plan.model}: nothing changes"
    members_of = sorted({split.multiplicity for split in plan.splits})
    few, most = members_of[0], members_of[-1]
    many = f"{few} to {most}" if few != most else f"{few}"
    return f"{plan.model}: {plural(len(plan.splits), 'region')} split into {many} members"


def _bought(plan: ir.Plan, report: ir.Report | None) -> list[str]:
    """The measure before and after, measured where it was, and the regions that changed most."""
    before, after = figure(plan, plan.baseline.measures), figure(plan, plan.planned.measures)
    gain = f"{title(plan)} {before:.4g} -> {after:.4g}, {ratio(after, before)}"
    promise = report.promise if report is not None else None
    if promise is not None and not promise.refused:
        gain += f"; measured {with_error(promise.measured, promise.stderr)}x"
    lines = [gain]
    old = {region.name: region for region in plan.regions}
    for split in plan.splits[:SHOWN]:
        design = f"{members(old[split.region].design)} -> " if split.region in old else ""
        lines.append(_cut(f"{split.region}: {design}{members(split.design)}", LABEL))
    if len(plan.splits) > SHOWN:
        lines.append(f"and {plural(len(plan.splits) - SHOWN, 'more region')}")
    return lines


def _costs(plan: ir.Plan, report: ir.Report | None) -> list[str]:
    """Every cost that is known, before and after."""
    old, new = plan.baseline, plan.planned
    rows = [
        ("parameters", count(old.params), count(new.params), ratio(new.params, old.params)),
        ("FLOPs", scaled(old.flops), scaled(new.flops), ratio(new.flops, old.flops)),
    ]
    for cost, before in plan.originals:
        after = changed_cost(plan, cost, before)
        name = COUNTED[cost][0]
        rows.append((name, written(cost, before), written(cost, after), ratio(after, before)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {a:>{widths[1]}} -> {b:>{widths[2]}}  {r}" for name, a, b, r in rows
    ]
    if report is None:
        return lines
    forecast = report.forecast
    if forecast is not None and forecast.cost == "step" and "step" in dict(plan.originals):
        lines[-1] += f"; measured {forecast.measured.ratio:.3f}x"
    elif forecast is not None:
        called = f"{forecast.measured.engine} at batch {forecast.measured.batch}"
        lines.append(f"{forecast.cost} of {called}  {forecast.measured.ratio:.3f}x measured")
    timed = [item for item in report.timings if not item.refused]
    if timed:
        each = (f"{item.engine} at batch {item.batch} {item.ratio:.2f}x" for item in timed)
        lines.append(f"timed: {', '.join(each)}")
    return lines


def _notes(plan: ir.Plan, report: ir.Report | None) -> list[str]:
    """Sentences in the order of their weight: failures, slowness, promises not kept, warnings."""
    last = before_and_after(plan).lines
    if report is None:
        return [*last[1:]] if plan.splits else [*last, *filter(None, [plan.note])]
    promise = report.promise
    broken = promise is not None and (promise.broken or promise.worse or promise.refused)
    lines = [*alarms(report), *slower(report), *(kept_promise(report) if broken else ())]
    if report.forecast is not None and not report.forecast.held:
        lines.append("SLOWER than was asked for by more than 5 %: the machine may be busy.")
    checks = report.verification.checks if report.verification is not None else ()
    lines += [f"{one.name}: {one.detail}" for one in checks if one.name == "warm start"]
    return [*lines, *(last[1:] if plan.splits else last)]


def _left(plan: ir.Plan, model: str) -> list[str]:
    """How much was left as it is, and how to learn why."""
    refused = plan.rejections
    if not refused:
        return []
    where = next((item.where for item in refused if item.where), "LAYER")
    why = f"cerewrite explain {model} {where}"
    return [f"{plural(len(refused), 'width')} for a reason: {why}"]


def _dearer(plan: ir.Plan) -> list[str]:
    """The menu's next rows: what more gain would cost."""
    names = [row.name for row in plan.menu]
    start = next((i for i, row in enumerate(plan.menu) if row.chosen), len(names))
    least = plan.menu[start].measure if start < len(names) else 1.0
    rows = [
        row
        for row in plan.menu[start + 1 :]
        if not row.refused and row.splits and row.measure < GAINS * least
    ]
    return [
        f"{row.option}: {row.measure:.3f}x"
        + (f" at {row.step:.2f}x the training step" if row.step else "")
        for row in (rows[:1] + rows[-1:] if len(rows) > 1 else rows)
    ]


def _rest(report: ir.Report | None) -> str:
    checks = report.verification if report is not None else None
    proved = f"{plural(len(checks.checks), 'check')} passed; " if checks and checks.passed else ""
    return f"{proved}-v prints everything"


def _labelled(label: str, lines: list[str]) -> list[str]:
    """Lines beside a label, wrapped."""
    wrapped = [part for line in lines for part in _wrap(line)]
    labels = [label, *[""] * len(wrapped)]
    return [f"  {a:<{LABEL - 2}}{b}" for a, b in zip(labels, wrapped, strict=False)]


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(printable(line, keep="\n\t"), COLUMNS - LABEL)


def _fitted(notes: list[str], room: int) -> list[str]:
    """As many notes as there is room for, and how many are not shown."""
    shown: list[str] = []
    for index, note in enumerate(notes):
        lines = _labelled("" if shown else "note", [note])
        last = index == len(notes) - 1
        if len(shown) + len(lines) + (not last) > room:
            more = _labelled("", [f"{plural(len(notes) - index, 'more note')}: -v"])
            return shown + more if room > len(shown) else shown
        shown += lines
    return shown


def _cut(line: str, used: int = 0) -> str:
    """A line that fits, with dots where it was cut."""
    most, line = COLUMNS - used, printable(line)
    return line if len(line) <= most else f"{line[: most - 3]}..."
