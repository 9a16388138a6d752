"""Designs that the user holds: the rest is planned around them."""

from __future__ import annotations

from typing import Any

import pytest

from cerewrite.errors import InfeasibleBudgetError, UsageError
from cerewrite.ir import Analysis, Design
from cerewrite.planning import check_plan
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.fixing import parse_design
from tests.planning.builders import analysis_of, chain_region
from tests.planning.builders import plan_freely as make_plan


def two(groups: int = 1) -> Analysis:
    return analysis_of(
        [
            chain_region("a", [24, 24], 64, 64, norm=2, divisor=2, multiplicity=groups),
            chain_region("b", [32, 32], 64, 64),
        ]
    )


def test_a_held_design_is_taken_and_the_rest_fills_the_budget() -> None:
    analysis = two()
    plan = make_plan(analysis, fixed={"a": "4x6"})
    check_plan(plan)
    first, second = plan.splits
    assert (first.multiplicity, first.widths) == (4, (6, 6))
    room = analysis.params - region_cost("params", analysis.regions[0].region, Design(4, (6, 6)))
    own = [item.region for item in analysis.regions]
    alone = analysis.params - sum(region_cost("params", r, Design(1, r.widths)) for r in own)
    assert 0.95 * (room - alone) <= second.params <= room - alone
    free = make_plan(analysis)
    assert free.planned.log_variance <= plan.planned.log_variance


def test_the_search_holds_what_it_would_have_chosen_itself() -> None:
    free = make_plan(two())
    first = free.splits[0]
    again = make_plan(two(), fixed={"a": (first.multiplicity, first.widths)})
    assert [(s.multiplicity, s.widths) for s in again.splits] == [
        (s.multiplicity, s.widths) for s in free.splits
    ]


def test_dual_counts_the_held_design() -> None:
    plan = make_plan(two(), objective="dual", fixed={"a": (3, (12, 12))})
    assert (plan.splits[0].multiplicity, plan.splits[0].widths) == (3, (12, 12))
    assert plan.planned.log_variance <= plan.baseline.log_variance * (1 + 1e-9)


def test_a_held_design_that_dual_cannot_make_up_for_is_refused() -> None:
    with pytest.raises(InfeasibleBudgetError, match="with the designs that are held"):
        make_plan(two(), objective="dual", fixed={"a": (1, (2, 2))})


def test_groups_are_re_chosen_or_kept() -> None:
    analysis = two(groups=3)
    free = make_plan(analysis)
    assert "a" in [split.region for split in free.splits]
    kept = make_plan(analysis, keep_groups=True)
    assert [split.region for split in kept.splits] == ["b"]
    assert ("a", "held") in [(item.where, item.code) for item in kept.rejections]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"c": "4x6"}}, "'c': no such region is planned"),
        ({"fixed": {"a": "4x6"}, "exclude": ["a"]}, "'a': no such region is planned"),
        ({"fixed": {"a": "4x5"}}, "width 5 of 'a.l0'"),
        ({"fixed": {"a": "4x6,6,6"}}, "4 members of 3 widths"),
        ({"fixed": {"a": (0, (6, 6))}}, "0 members"),
        ({"fixed": {"a": "4by6"}}, "design '4by6' cannot be read"),
        ({"fixed": {"a": "4x6"}, "uniform": True}, "cannot be held"),
    ],
)
def test_what_cannot_be_held_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_plan(two(), **options)
    assert caught.value.advice


@pytest.mark.parametrize("text", ["", "4", "x4", "0x3", "4x0", "4x3,", "-1x3"])
def test_unreadable_designs(text: str) -> None:
    with pytest.raises(UsageError):
        parse_design(text)
