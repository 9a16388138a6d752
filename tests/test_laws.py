"""The laws of a conversion, over random networks (hypothesis)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import cerewrite
from cerewrite.verifier.gradients import check_gradients
from tests.models import Basic, Inverted, StagedNet

ACTIVATIONS = [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU]


class Network(nn.Module):
    """Stem, a run of hidden layers around which a sum may lead, read-out."""

    def __init__(self, conv: bool, widths: list[int], **options: Any) -> None:
        super().__init__()
        self.conv, self.residual = conv, options["residual"]
        groups, bias, inputs = options["groups"], options["bias"], 6
        self.stem = self.layer(inputs, widths[0], True)
        run: list[nn.Module] = []
        for before, after in zip(widths, [*widths[1:], widths[0]], strict=True):
            inner = groups if run and len(run) > 2 and after != widths[0] else 1
            run += [
                self.layer(
                    before, after, bias, inner if before % inner == after % inner == 0 else 1
                ),
                *self.norm(options["norm"], after),
                options["activation"](),
            ]
        self.run = nn.Sequential(*run)
        self.head = nn.Linear(widths[0], 3)

    def layer(self, inputs: int, outputs: int, bias: bool, groups: int = 1) -> nn.Module:
        if self.conv:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias, groups=groups)
        return nn.Linear(inputs, outputs, bias=bias)

    def norm(self, kind: str, width: int) -> list[nn.Module]:
        if kind == "batch":
            return [nn.BatchNorm2d(width) if self.conv else nn.BatchNorm1d(width)]
        if kind == "own":
            return [nn.GroupNorm(1, width) if self.conv else nn.LayerNorm(width)]
        return []

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        z = self.run(y)
        z = y + z if self.residual else z
        return self.head(z.mean((2, 3)) if self.conv else z)


networks = st.builds(
    Network,
    conv=st.booleans(),
    widths=st.lists(st.sampled_from([4, 6, 8, 12, 16]), min_size=3, max_size=5),
    residual=st.booleans(),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    norm=st.sampled_from(["none", "batch", "own"]),
    activation=st.sampled_from(ACTIVATIONS),
)


budgets = st.sampled_from(["params", "params=1.5x", "flops"])
seeds = st.integers(0, 2**16)
unhurried = {"suppress_health_check": list(HealthCheck)}


@pytest.mark.thorough
@pytest.mark.parametrize("objective", ["primal", "dual"])
@settings(max_examples=10, **unhurried)
@given(network=networks, budget=budgets, seed=seeds)
def test_conversion_keeps_its_laws(
    objective: Any, network: Network, budget: str, seed: int
) -> None:
    check_laws(network, budget, objective, seed)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["primal", "dual"])
@settings(max_examples=500, **unhurried)
@given(network=networks, budget=budgets, seed=seeds)
def test_conversion_keeps_its_laws_often(
    objective: Any, network: Network, budget: str, seed: int
) -> None:
    check_laws(network, budget, objective, seed)


staged = st.builds(
    StagedNet,
    block=st.sampled_from([Basic, Inverted]),
    channels=st.tuples(*[st.sampled_from([6, 8, 12, 16])] * 2),
)


@pytest.mark.thorough
@pytest.mark.parametrize("objective", ["primal", "dual"])
@settings(max_examples=4, **unhurried)
@given(
    network=staged,
    budget=st.sampled_from(["params", "params=1.5x", "params,flops"]),
    scope=st.sampled_from(["stage", "network"]),
)
def test_conversion_keeps_its_laws_at_wider_scopes(
    objective: Any, network: nn.Module, budget: str, scope: str
) -> None:
    check_laws(network, budget, objective, 0, scope)


def check_laws(
    network: nn.Module, budget: str, objective: Any, seed: int, scope: str = "block"
) -> None:
    """Within budget, smaller or equal nu, verified, reverted bit for bit; or a typed refusal."""
    torch.manual_seed(seed)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    x = torch.randn(3, 6, 5, 5) if getattr(network, "conv", False) else torch.randn(3, 6)
    x = torch.randn(3, 3, 8, 8) if isinstance(network, StagedNet) else x
    before = copy.deepcopy(network.state_dict())
    parts = [getattr(module, "part", None) for module in network.modules()]
    again = any(part is not None and part.kind == "reused" for part in parts)
    how: dict[str, Any] = {"estimator": "analytic"}
    if again:  # calls of one module have their weights in common: draws alone measure that
        how = {"estimator": "jackknife", "draws": 4}
    try:
        result = cerewrite.convert(
            network, (x,), budget=budget, objective=objective, scope=scope, **how
        )
    except cerewrite.PlanError as error:
        assert error.advice
        return
    finally:
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    plan = result.plan
    assert plan.planned.log_variance <= plan.baseline.log_variance * (1 + 1e-12)
    assert all(getattr(plan.planned, b.cost) <= b.limit for b in plan.budgets)
    assert plan.planned.params == sum(p.numel() for p in result.model.parameters())
    assert result.verification.passed
    if plan.splits:
        with pytest.raises(cerewrite.StalePlanError):
            cerewrite.apply(plan, result.model)
        back = cerewrite.revert(result.model)
        assert all(torch.equal(v, before[k]) for k, v in back.state_dict().items())


def test_members_under_a_layer_norm_are_wider_than_one() -> None:
    """Found by hypothesis: a norm over a single channel returns a constant, and no gradient."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (6, 6, 6, 6):
        layers += [nn.Linear(inputs, 6), nn.LayerNorm(6), nn.GELU()]
    net = nn.Sequential(*layers, nn.Linear(6, 3))
    plan = cerewrite.convert(net, torch.randn(3, 6), estimator="analytic", widths="free").plan
    assert plan.splits and all(width >= 2 for split in plan.splits for width in split.widths)


def test_dead_units_are_not_taken_for_unreached_parameters() -> None:
    """Found by hypothesis: a class of few units may be dead on all the example inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(),
        nn.Linear(2, 3),
    )  # fmt: skip
    dead = copy.deepcopy(net)
    with torch.no_grad():
        for layer in (net[2], dead[2]):
            layer.weight.abs_()
            layer.bias.abs_()
        dead[2].weight.neg_()
        dead[2].bias.neg_()
    (check,) = check_gradients(net, dead, None, (torch.randn(3, 4),))
    assert check.passed, check.detail
