from __future__ import annotations

import pytest
import torch

import cerewrite
from cerewrite import ir
from cerewrite.planning.budgets import planned_cost
from cerewrite.reporter.planned import compared_scopes
from tests.models import ResidualNet, StagedNet, chain

IMAGE = torch.ones(2, 3, 8, 8)


def analysed(model: torch.nn.Module, x: torch.Tensor = IMAGE, scope: str = "auto") -> ir.Analysis:
    torch.manual_seed(0)
    return cerewrite.analyze(model, x, scope=scope, estimator="analytic")


@pytest.mark.thorough
def test_the_best_scope_is_chosen_and_the_others_are_on_record() -> None:
    analysis = analysed(StagedNet(channels=(16, 24)))
    plan = cerewrite.plan(analysis, budget="params")
    assert [item.scope for item in plan.scopes] == ["block", "stage", "network"]
    block, *others = plan.scopes
    assert "one-hidden-layer" in block.refused and (block.splits, block.gain) == (0, 1.0)
    (won,) = (item for item in plan.scopes if item.chosen)
    assert won.scope == plan.scope and won.gain == max(item.gain for item in others) > 1
    assert (won.params, won.after) == (plan.planned.params, plan.planned.log_variance)
    for item in others:
        alone = cerewrite.plan(analysis, scope=item.scope, budget="params")
        assert (alone.scope, alone.planned.log_variance) == (item.scope, item.after)


@pytest.mark.thorough
def test_one_estimate_serves_every_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    from cerewrite.estimators import ESTIMATORS

    calls = []
    estimate = ESTIMATORS["analytic"].estimate
    monkeypatch.setattr(
        type(ESTIMATORS["analytic"]), "estimate", lambda self, *a: calls.append(a) or estimate(*a)
    )
    model = ResidualNet()
    analysis = analysed(model)
    assert len(calls) == 1
    for scope in ("block", "stage", "network"):
        alone = analysed(model, scope=scope)
        assert analysis.at_scope(scope).regions == alone.regions
        assert analysis.at_scope(scope).nu == alone.nu


def test_of_equal_scopes_the_narrowest_wins() -> None:
    plan = cerewrite.plan(analysed(chain([16, 16, 16]), torch.ones(2, 7)), budget="params")
    assert plan.scope == "block"
    assert len({item.gain for item in plan.scopes}) == 1


def test_without_any_plan_the_first_scopes_reason_is_raised() -> None:
    with pytest.raises(cerewrite.PlanError, match="scope 'block'"):
        cerewrite.plan(analysed(chain([8]), torch.ones(2, 7)))


@pytest.mark.thorough
def test_dual_gain_is_the_costs() -> None:
    plan = cerewrite.plan(analysed(StagedNet(channels=(16, 24))), objective="dual")
    (won,) = (item for item in plan.scopes if item.chosen)
    assert won.gain == plan.baseline.params / plan.planned.params


@pytest.mark.thorough
@pytest.mark.parametrize("cost", ["memory", "latency"])
def test_dual_gain_is_the_first_budgets_whatever_it_is(cost: str, counted_clock: None) -> None:
    torch.manual_seed(0)
    analysis = cerewrite.analyze(
        StagedNet(channels=(16, 24)),
        IMAGE,
        scope="auto",
        memory_batch=4,
        latency_batch=1,
        estimator="analytic",
    )
    plan = cerewrite.plan(analysis, objective="dual", budget=[f"{cost}=2x", "params=2x"])
    (won,) = (item for item in plan.scopes if item.chosen)
    budget = plan.budgets[0]
    assert won.gain == budget.before / planned_cost(plan, budget)
    assert won.gain != plan.baseline.params / plan.planned.params


def test_records_survive_json() -> None:
    analysis = analysed(ResidualNet())
    plan = cerewrite.plan(analysis)
    assert ir.loads(ir.Plan, ir.dumps(plan), source="test") == plan
    assert ir.loads(ir.Analysis, ir.dumps(analysis), source="test") == analysis


def test_a_scope_outside_the_analysis_is_refused() -> None:
    with pytest.raises(cerewrite.UsageError, match="made at scope 'block'"):
        cerewrite.plan(analysed(ResidualNet(), scope="block"), scope="network")


@pytest.mark.thorough
def test_the_report_prints_the_comparison() -> None:
    plan = cerewrite.plan(analysed(StagedNet(channels=(16, 24))), budget="params")
    (section,) = compared_scopes(plan)
    assert [row[0] for row in section.rows] == ["block", "stage", "network"]
    assert [row[-1] for row in section.rows].count("chosen") == 1
    assert section.lines[0].startswith(f"Scope {plan.scope} wins over ")
    assert section.lines[1].startswith("block: StagedNet has no region")
    assert compared_scopes(cerewrite.plan(analysed(ResidualNet(), scope="block"))) == ()
