"""The planner equals exhaustive search wherever that can be done."""

from __future__ import annotations

import math

import pytest

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Analysis, Plan
from cerewrite.planner import check_plan, make_plan
from tests.planner.builders import random_analysis
from tests.planner.exhaustive import search

SHARES = (0.8, 1.0, 1.3)


def regions_score(plan: Plan, analysis: Analysis, nu: float) -> float:
    """Sum of log(1 + nu) over the regions alone."""
    fixed = sum(math.log1p(y.kappa) for y in analysis.layers if y.region is None)
    return math.log1p(nu) - fixed


def limits_of(analysis: Analysis, costs: tuple[str, ...], share: float) -> dict[str, float]:
    return {cost: float(math.floor(share * getattr(analysis, cost))) for cost in costs}


def check_primal(analysis: Analysis, costs: tuple[str, ...], share: float) -> None:
    limits = limits_of(analysis, costs, share)
    table = search(analysis, limits)
    if not table:
        with pytest.raises(InfeasibleBudgetError):
            make_plan(analysis, budget=[f"{cost}={share}x" for cost in costs])
        return
    plan = make_plan(analysis, budget=[f"{cost}={share}x" for cost in costs])
    check_plan(plan)
    for cost, limit in limits.items():
        assert getattr(plan.planned, cost) <= limit
    found = regions_score(plan, analysis, plan.planned.nu)
    assert found == pytest.approx(min(table.values()), rel=1e-9)


@pytest.mark.parametrize("block", range(10))
def test_primal_and_dual_equal_exhaustive_search(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        analysis = random_analysis(seed, size=3)
        cost = "params" if seed % 2 else "flops"
        check_primal(analysis, (cost,), SHARES[seed % 3])
        plan = make_plan(analysis, budget=cost, objective="dual")
        table = search(analysis, limits_of(analysis, (cost,), 1.0))
        target = regions_score(plan, analysis, plan.baseline.nu) * (1.0 + 1e-12)
        least = min(spent[0] for spent, score in table.items() if score <= target)
        assert getattr(plan.planned, cost) == least
        assert plan.planned.nu <= plan.baseline.nu * (1.0 + 1e-9)


@pytest.mark.parametrize("block", range(4))
def test_two_budgets_equal_exhaustive_search(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        analysis = random_analysis(seed, regions=1 + seed % 2, size=3 - seed % 2)
        check_primal(analysis, ("params", "flops"), SHARES[seed % 3])
