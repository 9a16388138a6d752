"""The closed form of standardised weights against draws (docs/theory.md, section 36)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cerewrite.analysis import analyze
from cerewrite.errors import NoClosedFormError, ZeroKernelError
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Estimate
from tests.standardised import ByHand, Normed, Scaled


def chain(activation: type[nn.Module], gamma: float, width: int = 48) -> nn.Module:
    """Without biases, whose variance would be a part of every mean square."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [Scaled(width, width, 1, gamma=gamma), activation()]
        nn.init.zeros_(layers[-2].get_parameter("bias"))
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 1, bias=False)).eval()


def nu(name: str, model: nn.Module, x: torch.Tensor, draws: int | None = None) -> Estimate:
    found = ESTIMATORS[name].estimate(trace(model, x), model, x, Assumption(draws=draws))
    assert found.nu is not None
    return found.nu


@pytest.mark.thorough
@pytest.mark.parametrize(("activation", "gamma"), [(nn.ReLU, 1.71), (nn.SiLU, 1.79)])
def test_nu_of_chains_against_draws(activation: type[nn.Module], gamma: float) -> None:
    model, x = chain(activation, gamma), torch.randn(1, 48, 1, 1)
    drawn = nu("monte-carlo", model, x, 1000)
    assert drawn.stderr is not None
    assert 4 * drawn.stderr < 0.3 * drawn.value
    assert abs(nu("analytic", model, x).value - drawn.value) < 4 * drawn.stderr


def test_moments_of_a_relu_that_is_read_less_its_mean() -> None:
    """Eq. 131, and the shares of eq. 130: every layer's kernel against that from above."""
    model, x = chain(nn.ReLU, 1.71), torch.ones(2, 48, 1, 1)
    first, second, last = analyze(trace(model, x), model, x, estimator="analytic").layers[:3]
    assert (first.v_aa, first.v_ab, first.v_bb) == pytest.approx((4.408, 0.533, 5.0), abs=2e-3)
    assert (last.v_aa, last.v_ab, last.v_bb) == pytest.approx((5.0, 1.0, 5.0), abs=2e-3)
    growth = 1 / (1 - 1 / math.pi)
    total = growth**2 + growth + 1 + 1  # of the three layers, and of the read-out that is plain
    assert first.backward_share == pytest.approx(growth**2 / total, rel=1e-4)
    assert second.backward_share == pytest.approx((growth**2 + growth) / total, rel=1e-4)


def test_the_gain_of_the_raw_weight_does_not_count() -> None:
    model, x = chain(nn.ReLU, 1.71), torch.ones(2, 48, 1, 1)
    before = nu("analytic", model, x).value
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.mul_(7).add_(1)
    assert nu("analytic", model, x).value == pytest.approx(before, rel=1e-4)


def test_a_depthwise_one_has_no_closed_form() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), Normed(8, 8, 3, groups=8, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    x = torch.randn(2, 3, 6, 6)
    with pytest.raises(NoClosedFormError, match="takes the mean of each channel's own few"):
        nu("analytic", model, x)
    assert analyze(trace(model, x), model, x, estimator="auto", draws=16).nu.value > 0


def test_gains_of_zero_are_woken() -> None:
    model = nn.Sequential(ByHand(3, 8, 1), nn.ReLU(), Scaled(8, 8, 1, gain=0.0), nn.ReLU(),
                          nn.Conv2d(8, 2, 1))  # fmt: skip
    nn.init.zeros_(model[2].bias)
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(ZeroKernelError, match="mean square reaches 0") as refused:
        analyze(trace(model, x), model, x, estimator="analytic")
    assert "--gain nonzero" in refused.value.advice
    woken = analyze(trace(model, x), model, x, estimator="analytic", gain="nonzero")
    assert all(layer.kappa > 0 for layer in woken.layers[:2])
