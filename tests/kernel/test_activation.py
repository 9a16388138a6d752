from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cerewrite.kernel.activation import evaluate, gaussian_grid

FUNCTIONS = [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.ELU(), nn.Hardswish(), nn.LeakyReLU()]


def test_the_grid_integrates_polynomials_exactly() -> None:
    nodes, weights = gaussian_grid()
    found = [float(weights @ nodes**k) for k in range(9)]
    assert found == pytest.approx([1, 0, 1, 0, 3, 0, 15, 0, 105], rel=1e-9, abs=1e-9)


def test_relu_halves_energy_and_slope() -> None:
    nodes, weights = gaussian_grid()
    value, slope = evaluate(torch.relu, math.sqrt(3) * nodes)
    assert float(weights @ value**2) == pytest.approx(1.5, rel=1e-9)
    assert float(weights @ slope**2) == pytest.approx(0.5, rel=1e-9)


def test_sine_has_a_closed_form() -> None:
    q = 0.7
    nodes, weights = gaussian_grid()
    value, slope = evaluate(torch.sin, math.sqrt(q) * nodes)
    assert float(weights @ value**2) == pytest.approx((1 - math.exp(-2 * q)) / 2, rel=1e-12)
    assert float(weights @ slope**2) == pytest.approx((1 + math.exp(-2 * q)) / 2, rel=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: type(f).__name__)
def test_slopes_are_derivatives(function: nn.Module) -> None:
    points = np.linspace(-5, 5, 101) + 0.013  # beside every kink
    (low, _), (high, _) = (evaluate(function, points + step) for step in (-1e-6, 1e-6))
    _, slope = evaluate(function, points)
    np.testing.assert_allclose((high - low) / 2e-6, slope, atol=1e-5)


def test_the_identity_and_constants() -> None:
    points = np.array([-1.0, 2.0])
    assert [x.tolist() for x in evaluate(None, points)] == [[-1, 2], [1, 1]]
    value, slope = evaluate(lambda z: torch.ones_like(z), points)
    assert (value.tolist(), slope.tolist()) == ([1, 1], [0, 0])
