"""Members that can be asked: a given number, the original's proportions, within every budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.errors import InfeasibleBudgetError, PlanError, UsageError
from cerewrite.ir import Analysis
from cerewrite.planning import check_plan, make_plan, recount
from cerewrite.planning.members import parse_members


def cnn(widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128)) -> nn.Module:
    """The six-layer CNN of the first figures."""
    layers: list[nn.Module] = []
    before = 1
    for i, width in enumerate(widths):
        stride = 2 if i in (2, 4) else 1
        layers += [nn.Conv2d(before, width, 3, padding=1, stride=stride)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def mlp(width: int = 128, depth: int = 4) -> nn.Module:
    sizes = (64, *[width] * depth)
    layers = [f for a, b in pairwise(sizes) for f in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def analysed(model: nn.Module, *shape: int, scope: str = "network") -> Analysis:
    x = torch.ones(2, *shape)
    return cerewrite.analyze(model, x, scope=scope, gain="he", estimator="analytic")


def test_four_members_of_half_the_widths_have_the_originals_costs() -> None:
    plan = make_plan(analysed(cnn(), 1, 12, 12), members=4)
    assert [(s.multiplicity, s.widths) for s in plan.splits] == [(4, (16, 16, 32, 32, 64, 48))]
    assert plan.exit_scale == "mean" and plan.measure == "log-variance"
    assert {b.cost for b in plan.budgets} == {"params", "flops"}
    assert 0.8 < plan.planned.params / plan.baseline.params <= 1
    assert 0.8 < plan.planned.flops / plan.baseline.flops <= 1
    check_plan(plan)
    assert recount(plan) == plan


@pytest.mark.parametrize("members", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("width", [100, 128, 192])
def test_budgets_hold_and_little_is_lost_to_the_multiple(members: int, width: int) -> None:
    analysis = analysed(mlp(width), 64)
    plan = make_plan(analysis, members=members)
    (split,) = plan.splits
    assert split.multiplicity == members and min(split.widths) >= 0.75 * max(split.widths)
    used = [
        getattr(plan.planned, cost) / getattr(plan.baseline, cost) for cost in ("params", "flops")
    ]
    assert max(used) <= 1
    fine = make_plan(analysis, members=members, channel_multiple=1, min_width=1)
    assert max(used) >= 0.8 * max(
        getattr(fine.planned, cost) / getattr(fine.baseline, cost) for cost in ("params", "flops")
    )
    assert split.widths[0] % 4 == 0


def test_a_users_multiple_and_budgets_go_first() -> None:
    analysis = analysed(mlp(), 64)
    wide = make_plan(analysis, members=4, budget="params=2x,flops=2x").splits[0].widths
    usual = make_plan(analysis, members=4).splits[0].widths
    assert wide[0] > usual[0]
    held = make_plan(analysis, members=4, budget="params=2x")  # FLOPs are held all the same
    assert held.planned.flops <= held.baseline.flops
    assert make_plan(analysis, members=4, channel_multiple=12).splits[0].widths[0] % 12 == 0
    assert make_plan(analysis, members=4, exit_scale="folded").exit_scale == "folded"
    assert make_plan(analysis).exit_scale == "folded"


@pytest.mark.thorough
@pytest.mark.held
def test_of_held_costs_members_keep_two_and_what_is_allowed_may_rise() -> None:
    analysis = cerewrite.analyze(
        cnn(), torch.ones(2, 1, 12, 12), scope="network", gain="he", memory_batch=32
    )
    usual = make_plan(analysis, members=4)
    assert [(b.cost, b.held) for b in usual.budgets] == [("params", False), ("flops", True)]
    wide = make_plan(analysis, members=4, budget="params=2x", allow="flops")
    assert wide.planned.flops > wide.baseline.flops
    named = make_plan(analysis, members=4, budget="params,memory=0.9x").budgets
    assert [b.cost for b in named] == ["params", "memory", "flops"]


def test_requests_that_contradict_are_refused() -> None:
    analysis = analysed(mlp(), 64)
    with pytest.raises(UsageError, match="the scope is 'block'") as caught:
        make_plan(analysed(mlp(), 64, scope="block"), members=4)
    assert "--scope network" in caught.value.advice
    for bad in (1, 0, "one", True):
        with pytest.raises(UsageError, match="members"):
            make_plan(analysis, members=bad)
    assert parse_members("auto") == 4
    for other in ({"fixed": {"0": "4x16"}}, {"uniform": True}, {"objective": "dual"}):
        with pytest.raises(UsageError, match="members are asked for"):
            make_plan(analysis, members=4, **other)
    with pytest.raises(InfeasibleBudgetError, match="1000 members of '0' do not fit"):
        make_plan(analysis, members=1000)
    two = replace(analysis, regions=analysis.regions * 2)
    with pytest.raises(PlanError, match=r"2 regions \('0', '0'\)"):
        make_plan(two, members=4)


def test_a_mean_belongs_at_the_end_of_the_network() -> None:
    block = analysed(mlp(), 64, scope="block")
    with pytest.raises(UsageError, match="exit_scale 'mean' at scope 'block'"):
        make_plan(block, exit_scale="mean")
    plan = make_plan(block)
    with pytest.raises(UsageError, match="scope 'block'"):
        check_plan(replace(plan, exit_scale="mean"))


def test_a_mean_changes_no_measure() -> None:
    """The kernel of a mean is that of the sum over m, draw by draw: every measure is free of it."""
    analysis = analysed(mlp(32, 2), 64)
    plan = make_plan(analysis, members=4, exit_scale="explicit")
    mean = make_plan(analysis, members=4)
    assert mean.planned == plan.planned
    x, net, kernels = torch.randn(1, 64), mlp(32, 2), []
    for made in (plan, mean):
        model = cerewrite.apply(made, net)
        model(x)[0, 0].backward()
        grads = {n: p.grad for n, p in model.named_parameters() if n != "4.bias"}
        kernels.append(sum(float(g.square().sum()) for g in grads.values()))
    assert kernels[1] == pytest.approx(kernels[0] / 4, rel=1e-5)
