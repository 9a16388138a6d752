"""The menu: the front between what a plan gains and what a training step then takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from cerewrite import ir, output
from cerewrite.api.options import PlanOptions
from cerewrite.api.stages import PathLike
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import NothingGainedError, PlanError, UsageError
from cerewrite.planning.budgets import BUDGETS, BudgetRequest, changed_cost, held_requests
from cerewrite.planning.measures import MEASURES
from cerewrite.planning.members import held_costs

PICKS = ("held", "1.25x", "1.5x", "2x", "params-only")
"""What ``--pick`` takes: every cost held, all of them up to so much, or the budgets alone."""


def menu(analysis: ir.Analysis, **options: Unpack[PlanOptions]) -> tuple[ir.MenuRow, ...]:
    """Plans under the same budgets, from costs held to budgets alone, as forecast.

    Args:
        analysis: what `analyze` returned; with ``step_batch`` the step's time is among the costs.
        options: those of `plan`; ``allow`` adds a row ``asked`` for it.

    Returns:
        One row per pick. A later row's measure is never larger, except after ``asked``.

    Example:
        >>> import cerewrite, torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(5)))
        >>> rows = menu(cerewrite.analyze(net, torch.ones(2, 256)))
        >>> [row.name for row in rows], rows[-1].measure <= rows[0].measure
        (['held', '1.25x', '1.5x', '2x', 'params-only'], True)
    """
    return _rows(_plans(analysis, options))


def menu_plans(
    analysis: ir.Analysis, options: PlanOptions, pick: str | None = None
) -> dict[str, ir.Plan]:
    """The plans of the menu that change something, by row; each design once, by its first row.

    Args:
        analysis: as for `menu`.
        options: those of `plan`; with the dual objective there is one row, ``dual``.
        pick: the only row that is wanted.
    """
    check_pick(pick, options)
    plans: dict[str, ir.Plan | PlanError] = {}
    if options.get("objective") == "dual":
        plans["dual"] = make_plan(analysis, **options)
    else:
        plans = _plans(analysis, options)
    found: dict[object, tuple[str, ir.Plan]] = {}
    for name, plan in plans.items():
        if isinstance(plan, ir.Plan) and plan.splits and pick in (None, name):
            found.setdefault(tuple((s.region, s.design) for s in plan.splits), (name, plan))
    return dict(found.values())


def row_option(name: str) -> str:
    """The option of `cerewrite convert` that gives a row's plan."""
    others = {"asked": "as asked", "dual": "--objective dual"}
    return others.get(name, f"--pick {name}")


def picked(analysis: ir.Analysis, pick: str, options: PlanOptions) -> PlanOptions:
    """The options of the plan that a row of the menu stands for.

    Raises:
        UsageError: if there is no such row, or ``allow`` is given too.
    """
    check_pick(pick, options)
    return {**options, "allow": _allowance(analysis, pick, options)}


def check_pick(pick: str | None, options: PlanOptions) -> None:
    """Refuse a row that no menu has, before anything is measured.

    Raises:
        UsageError: see `picked`.
    """
    if pick is None:
        return
    if pick not in PICKS:
        raise UsageError(f"the menu has no row '{pick}'", advice=f"pick one of {', '.join(PICKS)}")
    if options.get("allow"):
        raise UsageError(f"both a pick, '{pick}', and what is allowed", advice="give one of them")


def choose(
    analysis: ir.Analysis, pick: str | None, options: PlanOptions
) -> tuple[ir.Plan, PlanOptions]:
    """The plan that was picked or asked for, with the menu it stands on, and its options."""
    name = pick or ("asked" if options.get("allow") else "held")
    plans = {} if options.get("objective") == "dual" else _plans(analysis, options)
    if pick is not None:
        options = picked(analysis, pick, options)
    found = plans.get(name)
    plan = found if isinstance(found, ir.Plan) else make_plan(analysis, **options)
    rows = tuple(replace(row, chosen=row.name == name) for row in _rows(plans))
    return replace(plan, menu=rows), options


def nothing_gained(plan: ir.Plan) -> NothingGainedError:
    """The refusal to write a copy of the original, with what it would cost to gain."""
    better = next((row for row in plan.menu if row.splits), None)
    instead = (
        f"{better.option} gains: {better.measure:.3g} of the {plan.measure}"
        + (f" at {better.step:.2f} times the training step" if better.step else "")
        if better
        else "another --budget may gain"
        if plan.scopes  # every scope was tried
        else "another --budget or --scope may gain"
    )
    return NothingGainedError(
        f"no design of {plan.model} within {', '.join(b.text for b in plan.budgets)} has a "
        f"smaller {plan.measure}" + (f" ({plan.note})" if plan.note else ""),
        advice=f"{instead}; --unchanged writes a copy of the original",
    )


def profiled(analysis: ir.Analysis, profile: PathLike | ir.StepProfile) -> ir.Analysis:
    """The analysis with the step times of a record or of its file.

    Raises:
        UsageError: see `cerewrite.timing.with_step_profile`.
        OutputError: if the file cannot be read.
    """
    from cerewrite import timing

    if not isinstance(profile, ir.StepProfile):
        profile = output.read_record(ir.StepProfile, Path(profile))
    return timing.with_step_profile(analysis, profile)


def _allowance(analysis: ir.Analysis, pick: str, options: PlanOptions) -> tuple[str, ...]:
    """What is allowed in a row; () where nothing is held that the analysis knows."""
    held = [
        request.cost
        for request in held_requests(
            options.get("budget", "params"), held=held_costs(options.get("members"))
        )
        if BUDGETS[request.cost].known(analysis)
    ]
    if pick == "held" or not held:
        return ()
    return ("all",) if pick == "params-only" else tuple(f"{cost}={pick}" for cost in held)


def _plans(analysis: ir.Analysis, options: PlanOptions) -> dict[str, ir.Plan | PlanError]:
    """The plan of every row, or why it has none; what was asked for first, if it is no row."""
    allowances: dict[str, tuple[str | BudgetRequest, ...]] = {
        pick: _allowance(analysis, pick, options) for pick in PICKS
    }
    if options.get("allow"):
        asked = options["allow"]
        asked = (asked,) if isinstance(asked, str | BudgetRequest) else tuple(asked)
        allowances = {"asked": asked, **allowances}
    made: dict[object, ir.Plan | PlanError] = {}
    for allow in allowances.values():
        if allow not in made:
            try:
                wanted: PlanOptions = {**options, "allow": allow}
                made[allow] = make_plan(analysis, **wanted)
            except PlanError as error:
                made[allow] = error
    return {pick: made[allow] for pick, allow in allowances.items()}


def _rows(plans: dict[str, ir.Plan | PlanError]) -> tuple[ir.MenuRow, ...]:
    return tuple(_row(pick, plan) for pick, plan in plans.items())


def _row(pick: str, plan: ir.Plan | PlanError) -> ir.MenuRow:
    option = row_option(pick)
    if isinstance(plan, PlanError):
        return ir.MenuRow(pick, option, 0, 1.0, None, None, 1.0, 1.0, refused=plan.message)
    old, new = plan.baseline, plan.planned
    measure = MEASURES[plan.measure]
    before = measure.of(old.measures)
    ratios = {cost: changed_cost(plan, cost, first) / first for cost, first in plan.originals}
    return ir.MenuRow(
        name=pick,
        option=option,
        splits=len(plan.splits),
        measure=measure.of(new.measures) / before if before else 1.0,
        step=ratios.get("step"),
        memory=ratios.get("memory"),
        params=new.params / max(old.params, 1),
        flops=new.flops / max(old.flops, 1),
        designs=tuple((one.region, one.multiplicity, one.widths) for one in plan.splits),
    )
