"""The laws of a conversion, and of the tracing ladder, over random modules (hypothesis)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.lengths import UNTOLD
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.widths import build_widths
from tests.frontend.tracing.test_ladder import structure
from tests.models import chain
from tests.random_modules import INPUTS, MODULES, Part, RandomModule
from tests.test_laws import budgets, check_laws, seeds, unhurried

OBJECTIVES = pytest.mark.parametrize("objective", ["primal", "dual"])


@pytest.mark.thorough
@OBJECTIVES
@settings(max_examples=5, **unhurried)
@given(network=MODULES, budget=budgets, seed=seeds)
def test_laws(objective: Any, network: RandomModule, budget: str, seed: int) -> None:
    check_laws(network, budget, objective, seed)


@pytest.mark.slow
@OBJECTIVES
@settings(max_examples=500, **unhurried)
@given(network=MODULES, budget=budgets, seed=seeds)
def test_laws_often(objective: Any, network: RandomModule, budget: str, seed: int) -> None:
    check_laws(network, budget, objective, seed)


def check_rungs(network: RandomModule) -> None:
    """The recorder sees the layers and widths that export sees."""
    x = torch.randn(3, INPUTS, 5, 5) if network.conv else torch.randn(3, INPUTS)
    first = trace(network, x)
    ops = recorded_ops(network.eval(), (x,), {})
    second = build_widths(ops, network, frontend="recorder", batch=3, fingerprint="")
    assert structure(second) == structure(first)
    if first.frontend == "recorder":  # it alone tells sizes from numbers
        assert any(UNTOLD in refusal.reason for refusal in first.rejections)
    else:
        assert first.frontend == "export"


@pytest.mark.thorough
@settings(max_examples=10, **unhurried)
@given(network=MODULES)
def test_rungs_agree(network: RandomModule) -> None:
    check_rungs(network)


@pytest.mark.slow
@settings(max_examples=500, **unhurried)
@given(network=MODULES)
def test_rungs_agree_often(network: RandomModule) -> None:
    check_rungs(network)


class Sliced(nn.Module):
    """Calls slices of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.run = chain([8, 8, 8], inputs=INPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.run[3:](self.run[:3](x))


def test_slices_of_a_sequential_are_its_layers() -> None:
    """Found while planting a fault: the trace calls such a slice by a name that no module has."""
    torch.manual_seed(0)
    traced = trace(Sliced(), torch.randn(3, INPUTS))
    assert [layer.name for layer in traced.layers] == ["run.0", "run.2", "run.4", "run.6"]
    assert traced.rejections == ()
    result = cerewrite.convert(
        Sliced(), torch.randn(3, INPUTS), estimator="analytic", widths="free"
    )
    assert result.plan.splits


class Borrowing(nn.Module):
    """Views one value with the sizes of another."""

    def __init__(self) -> None:
        super().__init__()
        parts = [Part("chain", (12, 12)), Part("chain", (12, 12))]
        self.body = RandomModule(parts, 12, conv=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body.parts[0].run[:3](self.body.stem(x))
        z = self.body.parts[0].run[3:](y)
        return self.body.head(z.view(y.shape))


def test_a_size_read_off_another_value_makes_both_widths_one() -> None:
    """Found by hypothesis: the graph holds the number, not the value that it was read from.

    The recorder knows what it was read from: the two widths are equal or the view fails.
    """
    torch.manual_seed(0)
    model = Borrowing()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = cerewrite.convert(
        model,
        torch.randn(3, INPUTS),
        budget="params",
        objective="dual",
        min_width=1,
        estimator="analytic",
    )
    assert result.verification.passed and result.plan.splits
    assert any("view" in width.couplings for width in trace(model, torch.randn(3, INPUTS)).widths)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
