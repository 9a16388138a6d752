"""Var[log K1]: against draws of the sign kernel, its moments by quadrature, and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.sign import relu_sites, spread, sqrt_sign_kernels
from cerewrite.ir import Design, Site
from cerewrite.planning.measures import MEASURES
from cerewrite.planning.measures.log_variance import LogVariance
from cerewrite.planning.measures.sign_variance import (
    kernel_ratio,
    layer_shares,
    norm_moments,
    sign_coefficient,
)
from tests.planning.builders import chain_sites

MEASURE = MEASURES["sign-variance"]


def relu_chain(depth: int) -> tuple[Site, ...]:
    return chain_sites([f"l{i}" for i in range(depth)])


def unit_moments(relu: bool, draws: int = 400_000) -> NDArray[np.float64]:
    """Covariances of u, w, v and x of one unit, drawn."""
    rng = np.random.default_rng(0)
    z, g = rng.standard_normal((2, draws))
    mask = (z > 0.0).astype(float) if relu else np.ones(draws)
    parts = np.array([(mask * z) ** 2, abs(mask * z), (mask * g) ** 2, abs(mask * g)])
    return np.cov(parts / parts.mean(axis=1, keepdims=True))


@pytest.mark.parametrize(("relu", "energy", "mixed"), [(True, 5.0, 1.0), (False, 2.0, 0.0)])
def test_the_correction_is_the_variance_of_a_unit_s_part(
    relu: bool, energy: float, mixed: float
) -> None:
    up, down, own, reader = 0.5, 0.5, 0.2, 0.3
    weights = np.array([up - reader, 2.0 * reader, down - own, 2.0 * own])
    drawn = float(weights @ unit_moments(relu) @ weights)
    site = Site("l", 0, up, down, energy, energy, mixed)
    assert sign_coefficient(site, own, reader) == pytest.approx(drawn, rel=0.02)
    assert site.coefficient != pytest.approx(drawn, rel=0.025)


def test_existing_groups_add_what_they_add_to_the_kernel() -> None:
    """``S = r S_K``: the excess of groups over one of the same units is that of K times r."""
    sites, widths = relu_chain(3), np.full((1, 3), 32.0)
    grouped = [replace(site, groups=4, bundle="b") for site in sites]
    (excess,) = LogVariance().inner_excess(grouped, widths)
    added = MEASURE.member(grouped, widths) - MEASURE.member(sites, widths)
    assert added[0, 1:] == pytest.approx(2 * [float((kernel_ratio(sites, widths) * excess)[0])])
    assert added[0, 2] > 0.01


@pytest.mark.parametrize(
    ("depth", "m", "width"), [(3, 1, 32), (3, 16, 16), (6, 4, 16), (10, 8, 16)]
)
def test_it_is_the_drawn_variance(depth: int, m: int, width: int) -> None:
    drawn, error = spread(sqrt_sign_kernels(width, depth, 6_000, seed=depth), m, seed=1)
    assert error < 0.03 * drawn
    found = MEASURE.region(relu_sites(depth), Design(m, [width]))
    assert abs(found - drawn) < 0.08 * drawn + 3.0 * error
    # Without the layers' own norms it is low, and the test would see a fault of 25 %.
    assert abs(0.75 * found - drawn) > 0.08 * drawn + 3.0 * error


@pytest.mark.parametrize(("depth", "ratio"), [(3, 1.396), (6, 1.1945), (10, 1.1145), (16, 1.0705)])
def test_the_term_that_was_missing(depth: int, ratio: float) -> None:
    """Wide members: kappa1 over kappa of a uniform ReLU chain, by depth."""
    rows = np.full((1, depth), 1e6)
    assert kernel_ratio(relu_chain(depth), rows)[0] == pytest.approx(ratio, rel=1e-3)
    np.testing.assert_allclose(layer_shares(relu_chain(depth)), 1.0 / (depth + 1))


def test_moments_of_saturated_units_stay_positive() -> None:
    for energy in (0.0, 0.5, 1.9, 5.0):
        norm, cross = norm_moments(energy)
        assert norm >= 0.0 and cross * cross <= energy * norm * (1.0 + 1e-9)


def test_shares_of_branches_are_no_larger_than_their_part() -> None:
    stream, branch = Site("s", 0, 0.9, 0.1, 5, 5, 1), Site("b", 1, 0.2, 0.2, 5, 5, 1)
    shares = layer_shares([stream, branch])
    assert shares[0] == pytest.approx([0.1, 1.0 / 3.0])
    assert shares[1] == pytest.approx([0.4 / 3.0] * 2)


def test_its_optimum_is_narrower_than_that_of_log_variance() -> None:
    widths = np.arange(4, 64)
    members = np.maximum(16 * 64**2 / (16 * widths**2), 1.0)
    sites = relu_chain(16)

    def best(name: str) -> int:
        measure = MEASURES[name]
        rows = widths[:, None] * np.ones(16)
        return int(widths[np.argmin(measure.score(measure.member(sites, rows), members))])

    assert best("sign-variance") < best("log-variance") < best("nu")


def test_more_members_and_wider_ones_are_better() -> None:
    widths = np.arange(1, 60)[:, None] * np.ones(5, dtype=np.int64)
    member = MEASURE.member(relu_chain(5), widths)
    assert member.shape == (59, 3)
    assert (np.diff(member, axis=0) < 0.0).all()
    scores = MEASURE.score(member[:, None, :], np.arange(1.0, 500.0))
    assert (np.diff(scores, axis=0) < 0.0).all()
    assert (np.diff(scores, axis=1) < 0.0).all()


def test_no_larger_part_gives_a_smaller_score() -> None:
    rng = np.random.default_rng(0)
    low = rng.exponential(2.0, (200, 2)).cumsum(axis=1)
    high = low + rng.exponential(0.5, (200, 1)) * np.array([[1.0, 1.0]])
    rows = [np.concatenate([part[:, :1], part], axis=1) for part in (low, high)]
    for m in (1.0, 3.0, 50.0):
        first, second = (MEASURE.score(row, np.full(200, m)) for row in rows)
        assert (second > first).all()


def test_wide_members_and_nothing() -> None:
    found = MEASURE.region(relu_chain(6), Design(50, [4096] * 6))
    kappa = MEASURES["leading-order"].region(relu_chain(6), Design(50, [4096] * 6))
    assert found == pytest.approx(1.1945 * kappa, rel=0.01)
    assert MEASURE.region((), Design(3, [8])) == 0.0
    assert math.isfinite(MEASURE.region(relu_chain(1000), Design(5, [1] * 1000)))
    still = Site("l", 0, 0.0, 0.0, 5.0, 5.0, 1.0)
    assert MEASURE.region((still,), Design(2, [4])) == 0.0
