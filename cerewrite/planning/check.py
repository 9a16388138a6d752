"""A plan read back from a file is re-checked: an edit that breaks a rule is named."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, fields, replace

from cerewrite.errors import PlanError
from cerewrite.initialisers import INITIALISERS
from cerewrite.ir import (
    EXIT_SCALES,
    SCHEMA,
    WEIGHT_SOURCES,
    Figures,
    Measures,
    Plan,
    Region,
    Split,
)
from cerewrite.planning.budgets import BUDGETS, joint_costs, planned_cost
from cerewrite.planning.measures import MEASURES, changed_measures, region_measures

AGAIN = "mend the field, or run `cerewrite plan` again"
TOLERANCE = 1e-6
"""Relative difference allowed between a stated measure and a recomputed one."""


def check_plan(plan: Plan) -> None:
    """Check a plan against itself: its splits, their regions, its totals and its budgets.

    Args:
        plan: a plan, perhaps edited by hand.

    Raises:
        PlanError: naming the split and the rule that it breaks: an unknown or doubled region, a
            wrong number of widths, a multiplicity or width below 1, a width that is no
            multiple of what a module of the region needs, a split that changes nothing, stated
            params, FLOPs or measures that differ from a recount, totals that do not follow from
            the splits, or a budget that the plan exceeds.
    """
    regions = _check_splits(plan)
    _check_figures(plan)
    _check_totals(plan, regions)
    _check_budgets(plan)


def recount(plan: Plan) -> Plan:
    """An edited plan with every figure counted and measured anew, if it keeps the rules.

    Members and widths of a split may be changed, and splits deleted: their regions then stay as
    they are. Costs, measures and totals follow from the designs; what the file states of them
    is not read.

    Args:
        plan: a plan, perhaps edited by hand.

    Raises:
        PlanError: see `check_plan`; figures that differ from a recount are none of its reasons.
    """
    named = {split.region for split in plan.splits}
    regions = {name: found for name, found in _check_splits(plan).items() if name in named}
    plan = replace(plan, regions=tuple(regions.values()))
    counts = _counts(plan)
    splits = []
    for split in plan.splits:
        region = regions[split.region]
        params, flops = (counts[cost][split.region][1] for cost in ("params", "flops"))
        split = replace(split, params=params, flops=flops)
        if region.sites:
            found = region_measures(region, split.multiplicity, split.widths)
            split = replace(
                split,
                nu=found.nu,
                log_variance=found.log_variance,
                leading_order=found.leading_order,
            )
        splits.append(split)
    plan = replace(plan, splits=tuple(splits))
    plan = replace(plan, planned=_settled(plan.planned, follow_splits(plan, regions)))
    _check_budgets(plan)
    return plan


def _settled(stated: Figures, counted: Figures) -> Figures:
    """The counted figures; a stated measure that differs by rounding alone is kept."""
    kept = {
        field.name: getattr(stated, field.name)
        for field in fields(Measures)
        if math.isclose(
            getattr(stated, field.name), getattr(counted, field.name), rel_tol=1e-9, abs_tol=1e-15
        )
    }
    return replace(counted, **kept)


def _check_splits(plan: Plan) -> dict[str, Region]:
    """Everything but the figures; the plan's regions by name."""
    if plan.schema > SCHEMA:
        raise PlanError(
            f"the plan has schema {plan.schema}, this version reads up to {SCHEMA}",
            advice="use a newer cerewrite",
        )
    if plan.objective not in ("primal", "dual"):
        raise PlanError(
            f"the plan's objective is '{plan.objective}'", advice="write primal or dual"
        )
    MEASURES[plan.measure]
    _check_drawing(plan)
    regions = {region.name: region for region in plan.regions}
    seen: set[str] = set()
    for index, split in enumerate(plan.splits):
        where = f"splits[{index}] ({split.region})"
        if split.region not in regions:
            listed = ", ".join(list(regions)[:8]) or "none"
            raise PlanError(f"{where}: the plan has no such region", advice=f"choose from {listed}")
        if split.region in seen:
            raise PlanError(f"{where}: the region is split twice", advice="keep one of the two")
        seen.add(split.region)
        _check_design(where, split, regions[split.region])
    return regions


def _check_drawing(plan: Plan) -> None:
    for name, choices in (("exit_scale", EXIT_SCALES), ("weights", WEIGHT_SOURCES)):
        if getattr(plan, name) not in choices:
            raise PlanError(
                f"the plan's {name} is '{getattr(plan, name)}'",
                advice=f"write {' or '.join(choices)}",
            )
    if ":" not in plan.init and plan.init not in INITIALISERS:
        raise PlanError(
            f"the plan's init is '{plan.init}', which is no initialiser",
            advice=f"write one of {', '.join(INITIALISERS)}",
        )


def _check_design(where: str, split: Split, region: Region) -> None:
    if split.multiplicity < 1:
        raise PlanError(f"{where}: multiplicity {split.multiplicity} is below 1", advice=AGAIN)
    if len(split.widths) != len(region.classes):
        raise PlanError(
            f"{where}: {len(split.widths)} widths for {len(region.classes)} width classes "
            f"({', '.join(region.classes[:8])})",
            advice=AGAIN,
        )
    for index, (name, width) in enumerate(zip(region.classes, split.widths, strict=True)):
        if width < 1:
            raise PlanError(f"{where}: width {width} of '{name}' is below 1", advice=AGAIN)
        mine = [module for module in region.modules if name in module.widths]
        for module in mine:
            if width < module.least:
                raise PlanError(
                    f"{where}: width {width} of '{name}' is below the {module.least} that "
                    f"{module.name} needs",
                    advice=f"write {module.least} or more",
                )
        divisor = region.steps[index]
        if width % divisor:
            names = ", ".join(region.dividing(index))
            raise PlanError(
                f"{where}: width {width} of '{name}' is no multiple of {divisor}, which {names} "
                "needs",
                advice=f"write {max(width // divisor, 1) * divisor}",
            )
    if (split.multiplicity, split.widths) == (region.multiplicity, region.widths):
        raise PlanError(f"{where}: the split is the region as it is", advice="delete the split")


def _check_figures(plan: Plan) -> None:
    counts = _counts(plan)
    for index, split in enumerate(plan.splits):
        where = f"splits[{index}] ({split.region})"
        for cost, stated in (("params", split.params), ("flops", split.flops)):
            counted = counts[cost][split.region][1]
            if counted != stated:
                raise PlanError(
                    f"{where}: states {stated:,} {cost}, but {split.multiplicity} members of "
                    f"{split.widths} have {counted:,}",
                    advice=f"write {counted}, or run `cerewrite plan` again",
                )
        region = next(region for region in plan.regions if region.name == split.region)
        _check_measures(where, split, region)


def _counts(plan: Plan) -> dict[str, dict[str, tuple[int, int]]]:
    """Cost before and after, by cost and region; shared layers as `joint_costs` has them."""
    after = {split.region: (split.multiplicity, split.widths) for split in plan.splits}
    regions = [region for region in plan.regions if region.name in after]
    names = [region.name for region in regions]
    designs = [after[name] for name in names]
    return {
        cost: dict(zip(names, joint_costs(cost, regions, designs), strict=True))
        for cost in ("params", "flops")
    }


def _check_measures(where: str, split: Split, region: Region) -> None:
    if not region.sites:
        return
    found = region_measures(region, split.multiplicity, split.widths)
    for name, value in asdict(found).items():
        stated = getattr(split, name)
        if not math.isclose(value, stated, rel_tol=TOLERANCE, abs_tol=1e-12):
            raise PlanError(
                f"{where}: states {name} {stated:.6g}, but its design has {value:.6g}",
                advice=f"write {value!r}, or run `cerewrite plan` again",
            )


def _check_totals(plan: Plan, regions: dict[str, Region]) -> None:
    for region in regions.values():
        if region.name not in {split.region for split in plan.splits}:
            raise PlanError(
                f"regions: '{region.name}' has no split", advice="delete the region, or add one"
            )
    expected = follow_splits(plan, regions)
    for name in ("params", "flops"):
        stated, counted = getattr(plan.planned, name), getattr(expected, name)
        if stated != counted:
            raise PlanError(
                f"planned.{name} is {stated:,}, but the splits make it {counted:,}",
                advice=f"write {counted}, or run `cerewrite plan` again",
            )
    for field in fields(Measures):
        given, made = getattr(plan.planned, field.name), getattr(expected, field.name)
        if not math.isclose(given, made, rel_tol=TOLERANCE, abs_tol=1e-12):
            raise PlanError(
                f"planned.{field.name} is {given:.6g}, but the splits make it {made:.6g}",
                advice=f"write {made!r}, or run `cerewrite plan` again",
            )


def follow_splits(plan: Plan, regions: dict[str, Region]) -> Figures:
    """The whole model's figures, from the baseline's and what the splits change.

    A nu beyond float range cannot be divided out of a total; then the stated one is returned.
    """
    params, flops = (
        getattr(plan.baseline, cost) + sum(after - before for before, after in changes.values())
        for cost, changes in _counts(plan).items()
    )
    changes = []
    for split in plan.splits:
        region = regions[split.region]
        changes.append((split, region_measures(region, region.multiplicity, region.widths)))
    found = changed_measures(plan.baseline, changes)
    if max(plan.baseline.nu, plan.planned.nu) >= 1e250:
        found = replace(found, nu=plan.planned.nu)
    return Figures(params, flops, *astuple(found))


def _check_budgets(plan: Plan) -> None:
    for budget in plan.budgets:
        BUDGETS[budget.cost]
        stated = getattr(plan.planned, budget.cost, None)
        reached = planned_cost(plan, budget) if budget.before else stated
        if reached is not None and reached > budget.limit:
            raise PlanError(
                f"the plan has {reached:,} {budget.cost}, more than its budget '{budget.text}' "
                f"({budget.limit:,.0f}) allows",
                advice="choose smaller splits or raise the budget's limit",
            )
