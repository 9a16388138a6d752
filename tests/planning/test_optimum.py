"""The planner equals exhaustive search wherever that can be done."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Analysis, Figures, Plan
from cerewrite.planning import check_plan
from cerewrite.planning.measures import MEASURES
from tests.planning.builders import plan_freely as make_plan
from tests.planning.builders import random_analysis
from tests.planning.exhaustive import search

SHARES = (0.8, 1.0, 1.3)
DEFAULT = "log-variance"
"""The measure that every block of 20 random models is held to by `make test`; others to three."""


def marked(block: int, measure: str) -> Any:
    often = block < 3 or measure == DEFAULT
    marks = () if block == 0 else pytest.mark.thorough if often else pytest.mark.slow
    return pytest.param(block, measure, marks=marks)


def regions_score(plan: Plan, analysis: Analysis, figures: Figures) -> float:
    """Sum of the measure's scores over the regions alone."""
    measure = MEASURES[plan.measure]
    fixed = sum(measure.layer(y.kappa) for y in analysis.layers if y.region is None)
    return measure.additive(measure.of(figures.measures)) - fixed


def limits_of(analysis: Analysis, costs: tuple[str, ...], share: float) -> dict[str, float]:
    return {cost: float(math.floor(share * getattr(analysis, cost))) for cost in costs}


def check_primal(analysis: Analysis, costs: tuple[str, ...], share: float, measure: str) -> None:
    limits = limits_of(analysis, costs, share)
    table = search(analysis, limits, measure)
    budget = [f"{cost}={share}x" for cost in costs]
    if not table:
        with pytest.raises(InfeasibleBudgetError):
            make_plan(analysis, budget=budget, measure=measure)
        return
    plan = make_plan(analysis, budget=budget, measure=measure)
    check_plan(plan)
    for cost, limit in limits.items():
        assert getattr(plan.planned, cost) <= limit
    found = regions_score(plan, analysis, plan.planned)
    assert found == pytest.approx(min(table.values()), rel=1e-9)


@pytest.mark.parametrize(
    ("block", "measure"), [marked(block, measure) for block in range(10) for measure in MEASURES]
)
def test_primal_and_dual_equal_exhaustive_search(block: int, measure: str) -> None:
    stated = MEASURES[measure].of
    for seed in range(20 * block, 20 * block + 20):
        analysis = random_analysis(seed, size=3)
        cost = "params" if seed % 2 else "flops"
        check_primal(analysis, (cost,), SHARES[seed % 3], measure)
        plan = make_plan(analysis, budget=cost, objective="dual", measure=measure)
        table = search(analysis, limits_of(analysis, (cost,), 1.0), measure)
        target = regions_score(plan, analysis, plan.baseline) * (1.0 + 1e-12)
        least = min(spent[0] for spent, score in table.items() if score <= target)
        assert getattr(plan.planned, cost) == least
        assert stated(plan.planned.measures) <= stated(plan.baseline.measures) * (1.0 + 1e-9)


@pytest.mark.parametrize("measure", ["nu", "log-variance"])
@pytest.mark.parametrize(
    "block", [0, *(pytest.param(block, marks=pytest.mark.thorough) for block in (1, 2, 3))]
)
def test_two_budgets_equal_exhaustive_search(block: int, measure: str) -> None:
    for seed in range(10 * block, 10 * block + 10):
        analysis = random_analysis(seed, regions=1 + seed % 2, size=3 - seed % 2)
        check_primal(analysis, ("params", "flops"), SHARES[seed % 3], measure)
