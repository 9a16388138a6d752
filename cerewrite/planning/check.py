"""A plan read back from a file is re-checked: an edit that breaks a rule is named."""

from __future__ import annotations

import math
from dataclasses import replace

from cerewrite.errors import PlanError
from cerewrite.initialisers import INITIALISERS
from cerewrite.ir import LARGEST_COST, Figures, Measures, Plan, Region, Split, validate
from cerewrite.planning.budgets import BUDGETS, joint_costs, planned_cost
from cerewrite.planning.measures import (
    MEASURES,
    changed_measures,
    region_measures,
    reported,
)
from cerewrite.planning.members import check_mean
from cerewrite.registry import suggest

Counts = dict[str, dict[str, tuple[int, int]]]
"""Cost before and after, by cost and region."""

MOST_TIMES = 4
"""How many times the original's parameters a plan may build unless more are allowed."""

AGAIN = "mend the field, or run `cerewrite plan` again"
TOLERANCE = 1e-6
"""Relative difference allowed between a stated measure and a recomputed one."""
BEYOND = 1e250
"""Measures from here on are too near the end of float range to be divided out of a total."""


def check_plan(plan: Plan, *, max_params: int | None = None) -> None:
    """Check a plan against itself: its splits, their regions, its totals and its budgets.

    Args:
        plan: a plan, perhaps edited by hand.
        max_params: most parameters that it may build; 4 times the original's if not given.

    Raises:
        PlanError: naming the field that no plan may hold (see `cerewrite.ir.loads`), or the split
            and the rule that it breaks: an unknown or doubled region, a wrong number of widths, a
            width that is no multiple of what a module of the region needs, a split that changes
            nothing, stated params, FLOPs or measures that differ from a recount, totals that do
            not follow from the splits, a budget that the plan exceeds, or more parameters than
            are allowed.
    """
    plan = validate(plan, "plan")
    check_mean(plan.exit_scale, plan.scope, len(plan.splits))
    regions = _check_splits(plan)
    counts = _counts(plan)
    _check_figures(plan, regions, counts)
    _check_totals(plan, regions, counts)
    _check_budgets(plan)
    _check_size(plan, counts, max_params)


def recount(plan: Plan, *, max_params: int | None = None) -> Plan:
    """An edited plan with every figure counted and measured anew, if it keeps the rules.

    Members and widths of a split may be changed, and splits deleted: their regions then stay as
    they are. Costs, measures and totals follow from the designs; what the file states of them
    is not read.

    Args:
        plan: a plan, perhaps edited by hand.
        max_params: most parameters that it may build; 4 times the original's if not given.

    Raises:
        PlanError: see `check_plan`; figures that differ from a recount are none of its reasons.
    """
    plan = validate(plan, "plan")
    named = {split.region for split in plan.splits}
    regions = {name: region for name, region in _check_splits(plan).items() if name in named}
    plan = replace(plan, regions=tuple(regions.values()))
    counts = _counts(plan)
    splits = []
    for split in plan.splits:
        region = regions[split.region]
        params, flops = (counts[cost][split.region][1] for cost in ("params", "flops"))
        split = replace(split, params=params, flops=flops)
        if region.sites:
            split = replace(split, measures=region_measures(region, split.design))
        splits.append(split)
    plan = replace(plan, splits=tuple(splits))
    plan = replace(plan, planned=_settled(plan.planned, follow_splits(plan, regions, counts)))
    _check_budgets(plan)
    _check_size(plan, counts, max_params)
    return plan


def _settled(stated: Figures, counted: Figures) -> Figures:
    """The counted figures; a stated measure that differs by rounding alone is kept."""
    pairs = [(measure.of(stated.measures), measure.of(counted.measures)) for measure in reported()]
    close = [math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-15) for old, new in pairs]
    kept = [old if same else new for (old, new), same in zip(pairs, close, strict=True)]
    return replace(counted, measures=Measures(*kept))


def _check_splits(plan: Plan) -> dict[str, Region]:
    """Everything but the figures; the plan's regions by name."""
    for name, registry in (("measure", MEASURES), ("init", INITIALISERS)):
        given = getattr(plan, name)
        if given not in registry and not (name == "init" and ":" in given):
            raise PlanError(
                f"plan.{name}: '{given}' is no {registry.kind}", advice=suggest(given, registry)
            )
    for index, budget in enumerate(plan.budgets):
        if budget.cost not in BUDGETS:
            raise PlanError(
                f"plan.budgets[{index}].cost: '{budget.cost}' is no budget",
                advice=suggest(budget.cost, BUDGETS),
            )
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


def _check_design(where: str, split: Split, region: Region) -> None:
    if len(split.widths) != len(region.classes):
        raise PlanError(
            f"{where}: {len(split.widths)} widths for {len(region.classes)} width classes "
            f"({', '.join(region.classes[:8])})",
            advice=AGAIN,
        )
    least, steps = region.least, region.steps
    for index, (name, width) in enumerate(zip(region.classes, split.widths, strict=True)):
        if width < least[index]:
            module = next(y for y in region.modules if name in y.widths and width < y.least)
            raise PlanError(
                f"{where}: width {width} of '{name}' is below the {module.least} that "
                f"{module.name} needs",
                advice=f"write {module.least} or more",
            )
        if width % steps[index]:
            names = ", ".join(region.dividing(index))
            raise PlanError(
                f"{where}: width {width} of '{name}' is no multiple of {steps[index]}, which "
                f"{names} needs",
                advice=f"write {max(width // steps[index], 1) * steps[index]}",
            )
    if split.design == region.design:
        raise PlanError(f"{where}: the split is the region as it is", advice="delete the split")


def _check_figures(plan: Plan, regions: dict[str, Region], counts: Counts) -> None:
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
        _check_measures(where, split, regions[split.region])


def _counts(plan: Plan) -> Counts:
    """Cost before and after, by cost and region; shared layers as `joint_costs` has them."""
    after = {split.region: split.design for split in plan.splits}
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
    counted = region_measures(region, split.design)
    for measure in reported():
        value, stated = measure.of(counted), measure.of(split.measures)
        if not math.isclose(value, stated, rel_tol=TOLERANCE, abs_tol=1e-12):
            raise PlanError(
                f"{where}: states {measure.field} {stated:.6g}, but its design has {value:.6g}",
                advice=f"write {value!r}, or run `cerewrite plan` again",
            )


def _check_totals(plan: Plan, regions: dict[str, Region], counts: Counts) -> None:
    split_regions = {split.region for split in plan.splits}
    for region in regions.values():
        if region.name not in split_regions:
            raise PlanError(
                f"regions: '{region.name}' has no split", advice="delete the region, or add one"
            )
    expected = follow_splits(plan, regions, counts)
    for name in ("params", "flops"):
        stated, counted = getattr(plan.planned, name), getattr(expected, name)
        if stated != counted:
            raise PlanError(
                f"planned.{name} is {stated:,}, but the splits make it {counted:,}",
                advice=f"write {counted}, or run `cerewrite plan` again",
            )
    for measure in reported():
        given, made = measure.of(plan.planned.measures), measure.of(expected.measures)
        if not math.isclose(given, made, rel_tol=TOLERANCE, abs_tol=1e-12):
            raise PlanError(
                f"planned.{measure.field} is {given:.6g}, but the splits make it {made:.6g}",
                advice=f"write {made!r}, or run `cerewrite plan` again",
            )


def follow_splits(plan: Plan, regions: dict[str, Region], counts: Counts | None = None) -> Figures:
    """The whole model's figures, from the baseline's and what the splits change.

    A measure beyond float range cannot be divided out of a total; then the stated one is returned.
    """
    params, flops = (
        getattr(plan.baseline, cost) + sum(after - before for before, after in changes.values())
        for cost, changes in (counts or _counts(plan)).items()
    )
    changed = [regions[split.region] for split in plan.splits]
    before = [region_measures(region, region.design) for region in changed]
    after = [split.measures for split in plan.splits]
    measures = changed_measures(plan.baseline.measures, zip(after, before, strict=True))
    for measure in reported():
        stated = measure.of(plan.planned.measures)
        if max(measure.of(plan.baseline.measures), stated) >= BEYOND:
            measures = replace(measures, **{measure.field: stated})
    return Figures(params, flops, measures)


def _check_size(plan: Plan, counts: Counts, max_params: int | None) -> None:
    """Refuse what would be too large to build; nothing is built before."""
    before, after = plan.baseline.params, plan.planned.params
    for name, (own, _) in counts["params"].items():
        if own > before:
            raise PlanError(
                f"plan.baseline.params: {before:,}, but the region '{name}' alone has {own:,}",
                advice="make the plan again for this model",
            )
    limit = MOST_TIMES * before if max_params is None else max_params
    if after > limit:
        raise PlanError(
            f"the plan would build {after:,} parameters, more than the {limit:,} that are allowed",
            advice=f"choose smaller splits, or allow it with --max-params {after}",
        )
    if plan.planned.flops > LARGEST_COST:
        raise PlanError(
            f"the plan would take {plan.planned.flops:,} FLOPs, more than can be counted",
            advice="choose smaller splits",
        )


def asked_params(plan: Plan) -> int | None:
    """The budget of parameters of a plan, if it allows more than a plan may build otherwise."""
    asked = next((int(b.limit) for b in plan.budgets if b.cost == "params"), 0)
    return asked if asked > MOST_TIMES * plan.baseline.params else None


def _check_budgets(plan: Plan) -> None:
    for budget in plan.budgets:
        reached = planned_cost(plan, budget)
        if reached > budget.limit:
            raise PlanError(
                f"the plan has {reached:,} {budget.cost}, more than its budget '{budget.text}' "
                f"({budget.limit:,.0f}) allows",
                advice="choose smaller splits or raise the budget's limit",
            )
