from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cerewrite.oprules.activation import energy_moments

FUNCTIONS = [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.ELU(), nn.Hardswish(), nn.LeakyReLU()]


@pytest.mark.parametrize(("function", "known"), [(torch.relu, (5, 5, 1)), (None, (2, 2, 0))])
def test_closed_forms(function: object, known: tuple[float, ...]) -> None:
    for q in (0.01, 1.0, 30.0):
        assert energy_moments(function, q).spread(1.0) == pytest.approx(known, abs=1e-9)


def test_relu_halves_energy_and_its_slope_is_exact() -> None:
    moments = energy_moments(torch.relu, 3.0)
    assert moments.forward == pytest.approx(1.5, rel=1e-9)
    assert moments.forward_slope == pytest.approx(0.5, rel=1e-9)
    assert (moments.backward, moments.backward_slope) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_sine_has_a_closed_form() -> None:
    q = 0.7
    moments = energy_moments(torch.sin, q)
    assert moments.forward == pytest.approx((1 - math.exp(-2 * q)) / 2, rel=1e-12)
    assert moments.backward == pytest.approx((1 + math.exp(-2 * q)) / 2, rel=1e-12)
    assert moments.forward_slope == pytest.approx(math.exp(-2 * q), rel=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: type(f).__name__)
def test_slopes_are_derivatives(function: nn.Module) -> None:
    low, mid, high = (energy_moments(function, q) for q in (0.99, 1.0, 1.01))
    assert (high.forward - low.forward) / 0.02 == pytest.approx(mid.forward_slope, rel=1e-3)
    difference = (high.backward - low.backward) / 0.02
    assert difference == pytest.approx(mid.backward_slope, rel=2e-2, abs=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FUNCTIONS), st.floats(0.01, 20), st.floats(0.05, 1.0))
def test_spread_grows_with_the_fresh_share(function: nn.Module, q: float, r: float) -> None:
    moments = energy_moments(function, q)
    part, whole = moments.spread(r), moments.spread(1.0)
    assert -1e-6 <= part[0] <= whole[0] + 1e-6
    assert -1e-3 <= part[1] <= whole[1] + 1e-6


@pytest.mark.parametrize("fresh", [0.2, 0.5, 1.0])
def test_residual_stream_formula(fresh: float) -> None:
    v_aa, v_bb, v_ab = energy_moments(None, 1.0).spread(fresh)
    stated = 2 * (1 - (1 - fresh) ** 2)
    assert (v_aa, v_bb, v_ab) == pytest.approx((stated, stated, 0), abs=1e-9)


def test_partial_spread_against_sampling() -> None:
    """relu(old + fresh): the variance that the fresh half makes, by nested sampling."""
    rng = np.random.default_rng(0)
    old, fresh = rng.normal(size=(20000, 1)), rng.normal(size=(20000, 200))
    energy = np.maximum((old + fresh) / math.sqrt(2), 0) ** 2
    per_unit = energy.var(axis=1, ddof=1) / energy.mean() ** 2
    sampled, error = per_unit.mean(), per_unit.std() / math.sqrt(len(per_unit))
    predicted = energy_moments(torch.relu, 1.0).spread(0.5)[0]
    assert 4 * error < 0.1 * sampled
    assert abs(sampled - predicted) < 4 * error
