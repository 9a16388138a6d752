from __future__ import annotations

import itertools
import math

import pytest
import torch

import cerewrite
from cerewrite.ir import Analysis, Design
from cerewrite.planning.budgets import joint_costs
from cerewrite.planning.measures import MEASURES, model_measures
from tests.models import Basic, Inverted, StagedNet
from tests.planning.builders import remaining_kappas


def analysed(block: type[torch.nn.Module], channels: tuple[int, int] = (16, 24)) -> Analysis:
    torch.manual_seed(0)
    return cerewrite.analyze(
        StagedNet(block, channels), torch.ones(2, 3, 8, 8), scope="stage", estimator="analytic"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("block", [Basic, Inverted])
@pytest.mark.parametrize("budget", ["params", "params=0.6x", "params,flops"])
def test_stages_gain_within_the_budget(block: type[torch.nn.Module], budget: str) -> None:
    analysis = analysed(block)
    plan = cerewrite.plan(analysis, budget=budget)
    assert plan.splits and plan.gap == math.inf
    assert all(getattr(plan.planned, b.cost) <= b.limit for b in plan.budgets)
    if budget != "params=0.6x":
        assert plan.planned.log_variance < 0.95 * model_measures(analysis).log_variance
    if budget != "params,flops":
        assert plan.planned.params >= 0.97 * plan.budgets[0].limit


@pytest.mark.thorough
def test_no_grid_of_designs_around_the_plan_beats_it() -> None:
    """Every stage by itself and both together, over members and scaled widths."""
    analysis = analysed(Basic)
    plan = cerewrite.plan(analysis, budget="params")
    regions = [item.region for item in analysis.regions]
    rest, measure = remaining_kappas(analysis), MEASURES[plan.measure]
    options = []
    for split in plan.splits:
        scaled = [
            tuple(max(round(f * w), 1) for w in split.widths)
            for f in (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
        ]
        members = {max(round(split.multiplicity * f), 1) for f in (0.25, 0.5, 0.8, 1, 1.25, 2, 4)}
        options.append([Design(m, w) for w in scaled for m in members])
    best = math.inf
    for designs in itertools.product(*options):
        change = sum(b - a for a, b in joint_costs("params", regions, designs))
        if plan.baseline.params + change <= plan.budgets[0].limit:
            scores = [
                measure.region_score(r.sites, d) for r, d in zip(regions, designs, strict=True)
            ]
            best = min(best, measure.compose(scores, rest))
    assert math.isfinite(best)
    assert plan.planned.log_variance <= best * 1.005


def test_uniform_stages_share_members_and_scale() -> None:
    plan = cerewrite.plan(analysed(Basic, (64, 96)), budget="params", uniform=True)
    assert len({split.multiplicity for split in plan.splits}) == 1
    assert plan.planned.params <= plan.budgets[0].limit
    assert plan.planned.log_variance < plan.baseline.log_variance


@pytest.mark.thorough
def test_dual_saves_parameters_at_no_larger_nu() -> None:
    plan = cerewrite.plan(analysed(Basic), objective="dual")
    assert plan.planned.params < plan.baseline.params
    assert plan.planned.log_variance <= plan.baseline.log_variance


def test_an_impossible_budget_is_refused_with_the_range() -> None:
    with pytest.raises(cerewrite.InfeasibleBudgetError, match="reach"):
        cerewrite.plan(analysed(Basic), budget="params=10")
