"""The variance of the log of a mean of log-normal draws: quadrature, table, Monte-Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cerewrite.planning.measures import log_normal
from cerewrite.planning.measures.log_normal import base, log_mean_variance, quadrature

DRAWS = 40_000


def monte_carlo(spread: float, m: int) -> tuple[float, float]:
    """Var[log mean] of simulated draws, with the standard error of the variance."""
    rng = np.random.default_rng(m)
    draws = np.exp(math.sqrt(spread) * rng.standard_normal((DRAWS, m)))
    logs = np.log(draws.mean(axis=1))
    centred = (logs - logs.mean()) ** 2
    return float(centred.mean()), float(centred.std() / math.sqrt(DRAWS))


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("m", [2, 5, 20])
def test_quadrature_equals_simulation(spread: float, m: int) -> None:
    simulated, error = monte_carlo(spread, m)
    exact = float(quadrature(spread, np.asarray([m]))[0])
    assert error < 0.015 * simulated
    assert abs(exact - simulated) < 4.0 * error
    assert abs(1.08 * exact - simulated) > 4.0 * error, "a fault of 8 % would be seen"


@pytest.mark.thorough
def test_one_draw_and_many() -> None:
    for spread in (0.01, 1.0, 30.0, 600.0):
        assert quadrature(spread, np.asarray([1]))[0] == pytest.approx(spread, rel=1e-8)
        assert log_mean_variance(np.asarray(spread), np.asarray(1)) == pytest.approx(spread)
    many = log_mean_variance(np.asarray(0.5), np.asarray([10**5]))
    assert many == pytest.approx(base(np.asarray(0.5), np.asarray([10**5])), rel=1e-3)


def test_a_finer_rule_changes_nothing() -> None:
    m = np.asarray([1, 3, 50, 10_000])
    for spread in (0.3, 9.0, 200.0):
        np.testing.assert_allclose(
            quadrature(spread, m), quadrature(spread, m, step=0.04), rtol=1e-7
        )


@pytest.mark.thorough
def test_the_table_is_the_quadrature() -> None:
    """Between its nodes too: random spreads and members, within 0.5 %; exact at nodes."""
    rng = np.random.default_rng(0)
    for sigma in rng.uniform(0.05, 26.0, 12):
        m = np.unique(np.round(2.0 ** rng.uniform(0.0, 20.0, 12)))
        exact = quadrature(float(sigma**2), m)
        np.testing.assert_allclose(log_mean_variance(np.asarray(sigma**2), m), exact, rtol=5e-3)
    for sigma, draws, limit in ((3.05, 3756, 5e-3), (3.85, 961_548, 9e-3)):  # the worst points
        spread = np.asarray(sigma**2)
        m = np.asarray([draws])
        exact = quadrature(float(spread), m)
        np.testing.assert_allclose(log_mean_variance(spread, m), exact, rtol=limit)
    node = (7 * log_normal.SIGMA_STEP) ** 2
    m = 2.0 ** np.arange(0, 20, 3)
    np.testing.assert_allclose(
        log_mean_variance(np.asarray(node), m), quadrature(node, m), rtol=1e-6
    )


def test_it_is_monotone() -> None:
    spread = np.concatenate([np.linspace(0.0, 40.0, 900), np.linspace(40.5, 900.0, 500)])
    m = np.unique(np.round(2.0 ** np.linspace(0.0, 22.0, 300)))
    table = log_mean_variance(spread[:, None], m)
    assert (table >= 0.0).all() and np.isfinite(table).all()
    assert (np.diff(table[1:], axis=0) > 0.0).all()
    assert (np.diff(table[1:], axis=1) < 0.0).all()


@pytest.mark.slow
def test_the_file_is_what_the_generator_makes() -> None:
    stored = np.load(log_normal.TABLE, allow_pickle=False)
    np.testing.assert_allclose(stored, log_normal.make_table(), atol=2e-7)
