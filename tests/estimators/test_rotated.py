"""Var[log K] by rotated draws (docs/theory.md, section 30)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cerewrite.analysis import analyze
from cerewrite.estimators.base import Assumption
from cerewrite.estimators.draws import Ratio, Subject, log_variance, rotated_variance
from cerewrite.estimators.draws.kinks import WIDTH, Rounded
from cerewrite.estimators.draws.rotated import RULER, SIMPSON, STEP, STEPS, settled_turns, turn
from cerewrite.estimators.jackknife import _doubts
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace
from tests.models import chain


def ready(model: nn.Module, x: Tensor, **options: Any) -> Subject:
    return subject_of(trace(model, x), model, x, Assumption(**options))


def test_the_ruler_has_every_difference_once() -> None:
    differences = sorted(high - low for low in RULER for high in RULER if high > low)
    assert differences == list(range(1, STEPS + 1))


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8, 12, 20, 40])
def test_both_forms_hold_for_every_order(order: int) -> None:
    """``C(t) = cos(t)^order``, of variance 1."""
    rates = [order * math.cos(k * STEP) ** (order - 1) * math.sin(k * STEP) for k in range(7)]
    rest = STEP / 3 * float(SIMPSON @ np.array(rates[2:]))
    far = 1 - math.cos(2 * STEP) ** order + rest
    near = 1 - math.cos(STEP) ** order + STEP * (rates[1] + rates[2]) / 2 + rest
    assert far == pytest.approx(1.0, abs=0.01)
    assert order > 20 or near == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_one_layer_against_its_law(activation: type[nn.Module]) -> None:
    """``K = sum_i v_i^2 phi'(z_i)^2 + phi(z_i)^2`` of n independent units, drawn by the million."""
    model, x = chain([48], activation=activation), torch.ones(1, 7)
    z, v = np.random.default_rng(0).standard_normal((2, 20_000, 48)) * math.sqrt(1.5)
    slope, value = (
        (z > 0, z * (z > 0)) if activation is nn.ReLU else (1 - np.tanh(z) ** 2, np.tanh(z))
    )
    unit = value**2 * 1.5 + v**2 * slope**2 * 1.5  # both layers' sigma^2, up to 1 / n
    truth = log_variance(unit.mean(1)).value
    found = rotated_variance(ready(model, x, gain=1.5), 24)
    assert found is not None
    assert 3 * found.stderr < 0.45 * truth  # what the turns resolve
    assert found.value == pytest.approx(truth, abs=3 * found.stderr)


class Block(nn.Module):
    """Gated layers and attention by hand from one projection, which no unit stands for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.qkv = nn.Linear(5, width), nn.Linear(width, 3 * width)
        self.gate, self.up = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down, self.head = nn.Linear(2 * width, width), nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + self.down(F.silu(self.gate(self.norm(x))) * self.up(self.norm(x)))
        out: Tensor = self.head(self.norm(x).mean(1))
        return out


@pytest.mark.thorough
def test_narrow_gates_and_attention_by_hand_against_monte_carlo() -> None:
    torch.manual_seed(0)
    model, x = Block(16), torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(1))
    subject = ready(model, x, gain=1.0)
    truth = log_variance([subject.kernel(index) for index in range(800)])
    found = rotated_variance(subject, 40)
    assert found is not None
    error = math.hypot(found.stderr, truth.stderr)
    assert 2 * error < 0.4 * truth.value  # what the draws resolve
    assert found.value == pytest.approx(truth.value, abs=2 * error)


@pytest.mark.thorough
def test_jumps_of_kinks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = chain([24] * 3), torch.ones(1, 7)
    subject = ready(model, x, gain=2.0)
    truth = log_variance([subject.kernel(index) for index in range(1500)])
    whole = settled_turns([one for i in range(40) if (one := turn(subject, i)) is not None])
    monkeypatch.setattr("cerewrite.estimators.draws.rotated.Rounded", contextlib.nullcontext)
    blind = settled_turns([one for i in range(40) if (one := turn(subject, i)) is not None])
    error = math.hypot(whole.stderr, truth.stderr)
    assert 3 * error < 0.3 * truth.value  # what the draws resolve
    assert whole.value == pytest.approx(truth.value, abs=3 * error)
    assert blind.value < truth.value - 3 * error


KINKED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky": lambda z: F.leaky_relu(z, 0.2),
    "leaky, named": lambda z: F.leaky_relu(z, negative_slope=0.2),
    "prelu": lambda z: F.prelu(z, torch.tensor([0.3])),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.5, 2.0),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": nn.Hardswish(),
    "clamp": lambda z: z.clamp(-1.0, 0.5),
    "clamp, named": lambda z: torch.clamp(z, min=0.1),
    "abs": torch.abs,
    "in place": lambda z: F.relu(z.clone(), inplace=True),
    "written over": lambda z: torch.relu_(z.clone()),
}


@pytest.mark.parametrize("name", KINKED)
def test_a_rounded_activation_is_its_mean_under_noise(name: str) -> None:
    function = KINKED[name]
    z = torch.linspace(-4.0, 4.0, 4001, dtype=torch.float64)
    width = WIDTH * float(z.square().mean().sqrt())
    z = z.float()
    with Rounded():
        found = function(z)
    noise = torch.linspace(-6.0, 6.0, 1201)
    weights = torch.exp(-(noise**2) / 2)
    weights /= weights.sum()
    wanted = (
        torch.stack([function(z + width * float(u)) for u in noise]).mul(weights[:, None]).sum(0)
    )
    if name == "hardswish":  # its slope is rounded, its factor z is not
        wanted = z * torch.stack([F.hardsigmoid(z + width * float(u)) for u in noise]).mul(
            weights[:, None]
        ).sum(0)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)
    assert float((found - function(z)).abs().max()) > 1e-3


def test_what_has_no_kink_or_other_bounds_is_left_alone() -> None:
    z = torch.linspace(-2.0, 2.0, 9)
    with Rounded():
        bounded, smooth = z.clamp(min=torch.zeros(9)), F.gelu(z)
    assert torch.equal(bounded, z.clamp(min=0.0)) and torch.equal(smooth, F.gelu(z))


def test_weights_that_are_not_gaussian_are_not_rotated() -> None:
    model, x = chain([8]), torch.ones(1, 7)

    def uniform(net: nn.Module, generator: torch.Generator) -> None:
        for parameter in net.parameters():
            parameter.uniform_(-1.0, 1.0, generator=generator)

    assert rotated_variance(ready(model, x, redraw=uniform), 2) is None
    found = analyze(trace(model, x), model, (x,), estimator="jackknife", draws=2, redraw=uniform)
    assert any("no draws to rotate" in line for line in found.assumptions)


def test_progress_counts_units_and_turns() -> None:
    seen: list[tuple[int, int]] = []
    model, x = chain([12] * 2), torch.ones(1, 7)
    found = analyze(
        trace(model, x), model, (x,), estimator="jackknife", draws=3, gain="he",
        progress=lambda done, wanted, nu: seen.append((done, wanted)),
    )  # fmt: skip
    assert seen[:6] == [(done, 12) for done in range(1, 7)] and seen[-1][0] <= 12
    assert found.measures.log_variance.reference == "docs/theory.md 30"


def test_a_level_that_scatters_and_layers_that_it_contradicts_are_told() -> None:
    heavy, apart = (_doubts(Ratio(1.0, 0.3), 1.0), _doubts(Ratio(1.0, 0.1), 0.4))
    assert len(heavy) == len(apart) == 1
    assert "heavy tail" in heavy[0] and "narrow" in apart[0]
    assert _doubts(Ratio(1.0, 0.1), 1.1) == ()
