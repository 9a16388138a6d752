"""Edited plans: the split and the rule that it breaks are named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cerewrite.errors import PlanError
from cerewrite.ir import Design, Plan, Split
from cerewrite.planning import check_plan, recount
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.measures import region_measures
from tests import editing
from tests.planning.builders import analysis_of, chain_region
from tests.planning.builders import plan_freely as make_plan

PLAN = make_plan(
    analysis_of(
        [
            chain_region("a", [64, 64], 128, 128, norm=2, divisor=2),
            chain_region("b", [96, 96], 128, 128),
        ],
        extra_kappas=(0.01,),
    )
)


def edited(**changes: Any) -> Plan:
    first = editing.edited(PLAN.splits[0], **changes)
    return dataclasses.replace(PLAN, splits=(first, *PLAN.splits[1:]))


def test_a_plan_as_made_passes() -> None:
    check_plan(PLAN)
    check_plan(edited(note="looked at by hand"))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (edited(region="c"), r"splits\[0\] \(c\): the plan has no such region"),
        (
            dataclasses.replace(PLAN, splits=PLAN.splits[:1] * 2),
            r"splits\[1\] \(a\): the region is split twice",
        ),
        (edited(multiplicity=0), r"plan\.splits\[0\]\.multiplicity: expected int >= 1, found 0"),
        (edited(widths=(4,)), "1 widths for 2 width classes"),
        (edited(widths=(4, 0)), r"plan\.splits\[0\]\.widths\[1\]: expected int >= 1, found 0"),
        (edited(widths=(3, 4)), "width 3 of 'a.l0' is no multiple of 2, which a.n0 needs"),
        (edited(multiplicity=1, widths=(64, 64)), "is the region as it is"),
        (edited(multiplicity=PLAN.splits[0].multiplicity + 1), "states .* params, but"),
        (edited(params=PLAN.splits[0].params - 1), "states .* params, but"),
        (edited(flops=0), "states 0 flops, but"),
        (edited(nu=0.5), "states nu 0.5, but its design has"),
        (dataclasses.replace(PLAN, schema=99), "schema 99"),
        (
            dataclasses.replace(PLAN, objective="third"),
            'plan.objective: expected one of primal, dual, found "third"',
        ),
        (dataclasses.replace(PLAN, splits=PLAN.splits[1:]), "'a' has no split"),
        (
            dataclasses.replace(PLAN, planned=dataclasses.replace(PLAN.planned, params=5)),
            "planned.params is 5, but the splits make it",
        ),
        (
            dataclasses.replace(PLAN, planned=editing.edited(PLAN.planned, nu=5.0)),
            "planned.nu is 5, but the splits make it",
        ),
    ],
)
def test_broken_rules_are_named(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        check_plan(plan)
    assert caught.value.advice


def test_a_width_below_what_a_norm_needs_is_named() -> None:
    region = PLAN.regions[0]
    norm = dataclasses.replace(region.modules[0], divisor=1, least=4)
    needy = dataclasses.replace(region, modules=(norm, *region.modules[1:]))
    plan = dataclasses.replace(edited(widths=(2, 4)), regions=(needy, *PLAN.regions[1:]))
    with pytest.raises(PlanError, match="is below the 4 that"):
        check_plan(plan)


def test_a_consistent_edit_passes_unless_it_breaks_the_budget() -> None:
    def with_members(count: int) -> Plan:
        region, old = PLAN.regions[0], PLAN.splits[0]
        costs = [region_cost(name, region, Design(count, (4, 4))) for name in ("params", "flops")]
        after = region_measures(region, Design(count, (4, 4)))
        split = Split("a", Design(count, (4, 4)), *costs, after)
        planned = editing.edited(
            PLAN.planned,
            params=PLAN.planned.params + costs[0] - old.params,
            flops=PLAN.planned.flops + costs[1] - old.flops,
            nu=(1 + PLAN.planned.nu) / (1 + old.nu) * (1 + after.nu) - 1,
            log_variance=PLAN.planned.log_variance - old.log_variance + after.log_variance,
            leading_order=PLAN.planned.leading_order - old.leading_order + after.leading_order,
            sign_variance=PLAN.planned.sign_variance - old.sign_variance + after.sign_variance,
        )
        return dataclasses.replace(PLAN, splits=(split, *PLAN.splits[1:]), planned=planned)

    check_plan(with_members(2))
    with pytest.raises(PlanError, match="more than its budget 'params'"):
        check_plan(with_members(500))


def test_an_edited_split_is_counted_anew() -> None:
    made = recount(edited(multiplicity=2, widths=(4, 6), nu=0.0, params=1))
    check_plan(made)
    (first, *_), region = made.splits, made.regions[0]
    assert (first.multiplicity, first.widths) == (2, (4, 6))
    assert first.params == region_cost("params", region, Design(2, (4, 6)))
    assert first.nu == region_measures(region, Design(2, (4, 6))).nu
    change = first.params - PLAN.splits[0].params
    assert made.planned.params == PLAN.planned.params + change
    assert recount(PLAN).planned.params == PLAN.planned.params


def test_a_deleted_split_leaves_its_region_as_it_is() -> None:
    made = recount(dataclasses.replace(PLAN, splits=PLAN.splits[1:]))
    check_plan(made)
    assert [region.name for region in made.regions] == ["b"]
    region, old = PLAN.regions[0], PLAN.splits[0]
    own = region_cost("params", region, region.design)
    assert made.planned.params == PLAN.planned.params + own - old.params


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (edited(multiplicity=500), "more than its budget 'params'"),
        (edited(widths=(3, 4)), "no multiple of 2, which a.n0 needs"),
        (edited(multiplicity=0), "expected int >= 1, found 0"),
    ],
)
def test_a_recount_names_the_rule_that_an_edit_breaks(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        recount(plan)
