"""What a plan asks for and achieves, in words no stronger than its figures."""

from __future__ import annotations

import math

from cerewrite import ir
from cerewrite.planning.budgets import BUDGETS, changed_cost, planned_cost
from cerewrite.reporter.expected import expectation
from cerewrite.reporter.figures import (
    count,
    members,
    number,
    percent,
    plural,
    ratio,
    scaled,
    with_error,
)
from cerewrite.reporter.measured import (
    TITLES,
    before_of,
    beyond_range,
    figure,
    rare_draws,
    title,
    values,
)
from cerewrite.reporter.section import SHOWN, Section
from cerewrite.reporter.timed import seconds

NOT_EQUIVALENT = (
    "A split keeps a region's signature, not its function: the result is a model to train."
)


MENU = "Menu: what a gain costs, as forecast"
"""The section that a page's chart of plans belongs to."""


def menu(plan: ir.Plan) -> tuple[Section, ...]:
    """What the user can choose between, if a menu was made."""
    if not plan.menu:
        return ()
    rows: list[tuple[str, ...]] = []
    for row in plan.menu:
        if row.refused:
            rows.append((row.name, "-", "-", "-", "-", "-", "no plan"))
            continue
        costs = (row.step, row.memory, row.flops, row.params)
        mark = f"{row.option}  <- chosen" if row.chosen else row.option
        shown = ("-" if cost is None else f"{cost:.2f}x" for cost in costs)
        rows.append((row.name, f"{row.measure:.3f}x", *shown, mark))
    return (
        Section(
            title=MENU,
            columns=("", f">{title(plan)}", ">step", ">memory", ">FLOPs", ">params", "option"),
            rows=tuple(rows),
            lines=(
                "Ratios to the original; cerewrite convert MODEL with a row's option gives it.",
            ),
        ),
    )


def request(plan: ir.Plan) -> Section:
    """Objective, budgets, and the range in which a budget can be met."""
    aim = {
        "primal": f"primal: least {title(plan)} within the budget",
        "dual": f"dual: least cost at no larger {title(plan)}",
    }.get(plan.objective, plan.objective)
    facts = [("objective", aim)]
    for budget in plan.budgets:
        limit = f"{budget.cost} at most {_exactly(budget.cost, budget.limit)}"
        text = "" if budget.held and "=" not in budget.text else budget.text
        kind = "allowed" if budget.held and text else "held" if budget.held else "budget"
        facts.append((kind, f"{limit} ({text})" if text else limit))
    for cost, least, largest in plan.feasible:
        reached = f"from {_exactly(cost, least)} to {_exactly(cost, largest)}"
        facts.append(("reachable", f"{cost} {reached}"))
    facts += _training(plan)
    facts.append(
        ("search", f"{count(plan.considered)} designs at scope {plan.scope}, {_gap(plan)}")
    )
    if plan.exit_scale == "mean":
        facts.append(("exits", "mean of the members: each starts at a network's own scale"))
    facts.append(("seed", str(plan.seed)))
    return Section(
        title=f"{plan.model}: plan",
        facts=tuple(facts),
        lines=(plan.note,) if plan.note else (),
    )


def _training(plan: ir.Plan) -> list[tuple[str, str]]:
    """The training step that a memory budget speaks of."""
    kept = next((region.kept for region in plan.regions if region.kept is not None), None)
    if kept is None:
        return []
    return [("training step", f"batch {kept.batch}, {kept.item} bytes per element")]


def _gap(plan: ir.Plan) -> str:
    if not math.isfinite(plan.gap):
        return "no bound: regions share layers"
    return "proved optimal" if plan.gap <= 0 else f"within {percent(plan.gap)} of the optimum"


def splits(plan: ir.Plan, analysis: ir.Analysis | None = None, *, full: bool) -> Section:
    """Per region that changes: members x widths before and after, params, FLOPs, measure."""
    before = {region.name: region for region in plan.regions}
    measured = before_of(plan, analysis)
    shown = plan.splits if full or len(plan.splits) <= SHOWN + 8 else plan.splits[:SHOWN]
    rows = []
    for split in shown:
        region = before.get(split.region)
        old = members(region.design) if region else "-"
        row = [split.region, old, members(split.design), count(split.params)]
        row.append(scaled(split.flops))
        old_figure = measured.get(split.region)
        row.append("-" if old_figure is None else number(figure(plan, old_figure)))
        rows.append((*row, number(figure(plan, split.measures))))
    columns = ["region", ">before\nm x n", ">after\nm x n", ">params", ">FLOPs"]
    columns += [f">{title(plan)}\nbefore", f">{title(plan)}\nafter"]
    notes = tuple(f"{split.region}: {split.note}" for split in plan.splits if split.note)
    more = len(plan.splits) - len(shown)
    return Section(
        title="Splits",
        columns=tuple(columns),
        rows=tuple(rows),
        lines=((f"{plural(more, 'more split')} (-v shows them).",) if more else ())
        + (() if plan.splits else ("No region is split.",))
        + notes,
    )


def compared_scopes(plan: ir.Plan) -> tuple[Section, ...]:
    """How the scopes fared under the same budgets, if they were compared."""
    if not plan.scopes:
        return ()
    rows = []
    for item in plan.scopes:
        figures = (count(item.params), scaled(item.flops), number(item.before))
        after = (number(item.after), f"{item.gain:.3g}x") if not item.refused else ("-", "-")
        verdict = "chosen" if item.chosen else "no plan" if item.refused else ""
        rows.append((item.scope, str(item.splits), *figures, *after, verdict))
    gain = title(plan) if plan.objective == "primal" else plan.budgets[0].cost
    won = next(item for item in plan.scopes if item.chosen)
    others = [item for item in plan.scopes if not item.chosen and not item.refused]
    lines = [f"{item.scope}: {item.refused}" for item in plan.scopes if item.refused]
    if others:
        second = max(others, key=lambda item: item.gain)
        by = won.gain / second.gain
        ahead = f"by {100 * (by - 1):.3g} %" if by > 1 else "with the same gain"
        lines.insert(0, f"Scope {won.scope} wins over {second.scope} {ahead}.")
    return (
        Section(
            title="Scopes compared",
            columns=(
                "scope", ">splits", ">params", ">FLOPs",
                f">{title(plan)}\nbefore", f">{title(plan)}\nafter",
                f">{gain}\ngain", "",
            ),
            rows=tuple(rows),
            lines=tuple(lines),
        ),
    )  # fmt: skip


def before_and_after(plan: ir.Plan, analysis: ir.Analysis | None = None) -> Section:
    """Params, FLOPs and measures of the whole model, with ratios; what may be claimed.

    Args:
        plan: what changes.
        analysis: for the errors of the measures before, which the plan does not hold.
    """
    old, new = plan.baseline, plan.planned
    errors = [one.stderr for one in values(analysis.measures)] if analysis else [None] * len(TITLES)
    rows = (
        ("params", count(old.params), count(new.params), ratio(new.params, old.params)),
        ("FLOPs", scaled(old.flops), scaled(new.flops), ratio(new.flops, old.flops)),
        *_counted(plan),
        *_limited(plan),
        *(
            (name, with_error(before, error), number(after), ratio(after, before))
            for name, before, after, error in zip(
                TITLES, values(old.measures), values(new.measures), errors, strict=True
            )
        ),
    )
    return Section(
        title="Before and after",
        columns=("", ">before", ">after", ">ratio"),
        rows=rows,
        lines=(claim(plan), *expectation(plan), *(_cautions(plan) if plan.splits else ())),
    )


def _cautions(plan: ir.Plan) -> tuple[str, ...]:
    """What is to be known of a plan that changes something."""
    return (*beyond_range(plan), *rare_draws(plan), *_warning(plan), NOT_EQUIVALENT)


COUNTED = {
    "memory": ("training memory", "not counted"),
    "step": ("training step", "not timed"),
}
"""Held costs that the figures do not hold: their row, and what it says without an amount."""


def _counted(plan: ir.Plan) -> list[tuple[str, str, str, str]]:
    """Training memory and the time of a step, before and after."""
    known = dict(plan.originals)
    rows = []
    for cost, (name, missing) in COUNTED.items():
        before = known.get(cost)
        if before is None:
            rows.append((name, missing, missing if plan.splits else "", "-"))
            continue
        after = changed_cost(plan, cost, before)
        rows.append((name, written(cost, before), written(cost, after), ratio(after, before)))
    return rows


def _limited(plan: ir.Plan) -> list[tuple[str, str, str, str]]:
    """Other budgeted costs that the figures do not hold, before and after."""
    rows = []
    for budget in plan.budgets:
        if budget.before and budget.cost not in COUNTED:
            after = planned_cost(plan, budget)
            shown = (written(budget.cost, budget.before), written(budget.cost, after))
            rows.append((budget.cost, *shown, ratio(after, budget.before)))
    return rows


def written(cost: str, value: float) -> str:
    """An amount of a cost that the figures do not hold, with its unit."""
    if BUDGETS[cost].timed or BUDGETS[cost].trains:
        return seconds(value * 1e-9)
    return scaled(value, "B" if cost == "memory" else "")


def _exactly(cost: str, value: float) -> str:
    measured = BUDGETS[cost].timed or BUDGETS[cost].trains
    return written(cost, value) if measured else count(value)


DEARER = 1.5
"""A cost above this ratio that nothing limits is warned about."""


NARROW = 8
"""Members narrower than this many channels are warned about: grouped kernels lose their speed."""


def _warning(plan: ir.Plan) -> tuple[str, ...]:
    """What a plan costs that nobody limited."""
    lines = []
    limited = {budget.cost for budget in plan.budgets}
    growth = {
        "params": ("params", plan.planned.params / max(plan.baseline.params, 1)),
        "flops": ("FLOPs", plan.planned.flops / max(plan.baseline.flops, 1)),
    }
    for cost, before in plan.originals:
        growth[cost] = COUNTED[cost][0], changed_cost(plan, cost, before) / before
    dearer = [
        f"{name} {value:.1f} times"
        for cost, (name, value) in growth.items()
        if value > DEARER and cost not in limited
    ]
    if dearer:
        lines.append(f"What was allowed to grow does: {', '.join(dearer)} the original's.")
    if plan.member_widths == "free":
        lines.append(
            "Members are not in the original's proportions: the measures were checked on members "
            "that are, and extrapolate here (--widths proportional)."
        )
    narrowest = min(width for split in plan.splits for width in split.widths)
    if narrowest < NARROW:
        lines.append(
            f"Members as narrow as {plural(narrowest, 'channel')}: grouped kernels lose most of "
            f"their speed there, and the measures are extrapolations; see --min-width {NARROW}."
        )
    return tuple(lines)


def claim(plan: ir.Plan) -> str:
    """One sentence on what the plan achieves, no stronger than its figures."""
    old, new = plan.baseline, plan.planned
    if not plan.splits:
        return f"No design within these limits has a smaller {title(plan)}: nothing changes."
    spent = [("parameters", new.params / max(old.params, 1))]
    if any(budget.cost == "flops" for budget in plan.budgets):
        spent.append(("FLOPs", new.flops / max(old.flops, 1)))
    costs = " and ".join(f"{100 * part:.4g} % of the {name}" for name, part in spent)
    equal = all(0.99 <= part <= 1 for _, part in spent)
    before, after = figure(plan, old.measures), figure(plan, new.measures)
    fall = "falls to" if after < before else "is"
    reached = f"{title(plan)} {fall} {ratio(after, before)} the original's"
    return f"{'Equal budget: ' if equal else ''}{costs}; {reached}."
