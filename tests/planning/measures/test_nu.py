"""Laws and reference numbers of the region measure (docs/theory.md, sections 4 and 9)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerewrite.ir import Design, Site
from cerewrite.planning.measures import MEASURES, member_nu, model_measures
from cerewrite.planning.measures.nu import HUGE, inflation, norm_excess
from tests.planning.builders import analysis_of, chain_region, chain_sites, remaining_kappas, resnet
from tests.planning.measures.composing import compose, region_nu


def relu_chain(depth: int) -> tuple[Site, ...]:
    return chain_sites([f"l{i}" for i in range(depth)])


def exact_nu(widths: list[int]) -> float:
    """Exact moments of a ReLU chain (docs/theory.md, section 3), the oracle."""
    moments = [1.0, 0.0, 0.0, 0.0, 0.0]
    mean_a, mean_t, fan_in = 1.0, 0.0, 1
    for n in widths:
        s, off, di = 2.0 / fan_in, n * (n - 1) / 4, n / 2
        x1, x2, x3, x4, x5 = moments
        ezz = 3 * s * s * x1
        ett = s * s * (x1 + 2 * x2 + x3 + 2 * x4)
        ezt = s * s * (x1 + x2 + 2 * x5)
        moments = [
            off * s * s * x1 + di * ezz,
            off * s * s * (x1 + x2) + di * ezt,
            off * s * s * (x1 + 2 * x2 + x3) + di * ett,
            off * s * s * x4 + di * ett,
            off * s * s * x5 + di * ezt,
        ]
        mean_a, mean_t = n * s * mean_a / 2, n * s * (mean_a + mean_t) / 2
        fan_in = n
    x1, x2, x3, x4, _ = moments
    return (x1 + 2 * x2 + x3 + 2 * x4) / (mean_a + mean_t) ** 2 - 1.0


@pytest.mark.parametrize(
    ("widths", "ours", "exact"),
    [
        ([32], 0.09375, 0.09375),
        ([32] * 2, 0.211914, 0.2136502),
        ([32] * 3, 0.347961, 0.3533020),
        ([32] * 5, 0.676215, 0.6961428),
        ([32] * 10, 1.937804, 2.0718490),
        ([128] * 10, 0.316874, 0.3216908),
        ([64, 16, 64], 0.322906, 0.3273),
    ],
)
def test_reference_numbers(widths: list[int], ours: float, exact: float) -> None:
    found = region_nu(relu_chain(len(widths)), 1, widths)
    assert found == pytest.approx(ours, abs=1e-6)
    assert exact_nu(widths) == pytest.approx(exact, rel=2e-4)
    assert found == pytest.approx(exact, rel=0.07 if widths == [32] * 10 else 0.031)


def test_wide_members_follow_the_leading_order() -> None:
    sites = relu_chain(4)
    kappa = sum(site.coefficient for site in sites) / 1e7
    assert region_nu(sites, 1, [1e7] * 4) == pytest.approx(kappa, rel=1e-5)


@given(st.integers(1, 8), st.integers(1, 40), st.lists(st.integers(1, 99), min_size=8, max_size=8))
def test_members_divide_nu_and_width_lowers_it(depth: int, m: int, widths: list[int]) -> None:
    sites = relu_chain(depth)
    one = region_nu(sites, 1, widths[:depth])
    assert region_nu(sites, m, widths[:depth]) == pytest.approx(one / m, rel=1e-12)
    wider = [width + 1 if index == depth // 2 else width for index, width in enumerate(widths)]
    assert region_nu(sites, 1, wider[:depth]) < one


def test_inflation_is_at_least_one_and_one_for_one_layer() -> None:
    assert (inflation(relu_chain(5), np.full((1, 5), 8.0)) > 1.0).all()
    assert inflation(relu_chain(1), np.full((1, 1), 8.0))[0] == pytest.approx(1.0)


def test_inflation_is_one_where_nothing_fluctuates() -> None:
    still = Site("l", 0, 0.0, 0.0, 5.0, 5.0, 1.0)
    assert inflation([still], np.array([[4.0]]))[0] == 1.0
    negative = Site("l", 0, 0.5, 0.5, 0.0, 0.0, -2.0)
    assert inflation([negative], np.array([[4.0]]))[0] == 1.0


def test_many_designs_at_once_equal_one_by_one() -> None:
    sites = relu_chain(6)
    rows = np.random.default_rng(0).integers(1, 300, (50, 6))
    together = member_nu(sites, rows)
    alone = [region_nu(sites, 1, row.tolist()) for row in rows]
    np.testing.assert_allclose(together, alone, rtol=1e-13)


def test_several_sites_may_see_one_class() -> None:
    sites = [Site("a", 0, 0.6, 0.4, 5, 5, 1), Site("b", 0, 0.3, 0.7, 5, 5, 1)]
    split = [Site("a", 0, 0.6, 0.4, 5, 5, 1), Site("b", 1, 0.3, 0.7, 5, 5, 1)]
    assert region_nu(sites, 2, [7]) == pytest.approx(region_nu(split, 2, [7, 7]))


def test_deep_and_narrow_saturates_instead_of_overflowing() -> None:
    assert region_nu(relu_chain(1000), 1, [1] * 1000) == HUGE
    assert region_nu([], 3, [8]) == 0.0
    assert compose([HUGE, 1.0]) == HUGE


def test_compose() -> None:
    assert compose([]) == 0.0
    assert compose([0.1, 0.2, 0.3]) == pytest.approx(1.1 * 1.2 * 1.3 - 1)
    assert compose([1e-18] * 3) == pytest.approx(3e-18)


def test_baseline_counts_every_layer_once() -> None:
    region = chain_region("r", [16, 16], 8, 4)
    analysis = analysis_of([region], extra_kappas=(0.05, 0.0))
    assert remaining_kappas(analysis) == (0.05, 0.0)
    own = region_nu(region.sites, 1, [16, 16])
    assert model_measures(analysis).nu == pytest.approx(compose([own, 0.05]))
    assert model_measures(resnet()).nu == pytest.approx(resnet().nu.value)


@pytest.mark.parametrize("name", list(MEASURES))
def test_measures_are_monotone_and_additive(name: str) -> None:
    measure, sites = MEASURES[name], relu_chain(3)
    widths = np.asarray([[4, 4, 4], [8, 8, 8], [64, 64, 64]])
    member = measure.member(sites, widths)
    assert (np.diff(member, axis=0) < 0.0).all()
    members = np.asarray([1, 2, 3, 7, 50, 1000])
    scores = measure.score(member[:, None], members)
    assert scores.shape == (3, 6)
    assert (np.diff(scores, axis=0) < 0.0).all()
    assert (np.diff(scores, axis=1) < 0.0).all()
    assert (scores >= 0.0).all()


def test_nu_scores_add_up_to_the_model() -> None:
    measure, sites = MEASURES["nu"], relu_chain(2)
    score = measure.score(measure.member(sites, np.asarray([[9, 9]])), np.asarray([3]))
    assert math.expm1(2 * score[0]) == pytest.approx(compose([region_nu(sites, 3, [9, 9])] * 2))


def test_branches_that_see_a_part_of_the_kernel_compose_like_layers() -> None:
    """A stream with a branch: the shares differ, so the chain's recursion does not hold."""
    stream = Site("stem", 0, forward_share=0.8, backward_share=0.2, v_aa=5.0, v_bb=5.0, v_ab=1.0)
    branch = Site("block", 1, forward_share=0.4, backward_share=0.2, v_aa=5.0, v_bb=5.0, v_ab=1.0)
    widths = (24.0, 12.0)
    kappas = [stream.coefficient / 24, branch.coefficient / 12]
    expected = (1 + kappas[0]) * (1 + kappas[1]) - 1
    assert region_nu((stream, branch), 3, widths) == pytest.approx(expected / 3, rel=1e-12)


def test_norms_over_few_units_scatter_as_draws_of_their_inverse_energy() -> None:
    """K in proportion to 1 / s^2 of Gaussian units, whose leading order is 2 / n."""
    n, draws = 24, 200_000
    units = np.random.default_rng(0).standard_normal((draws, n))
    inverse = 1.0 / units.var(1)
    nu = inverse.var() / inverse.mean() ** 2
    stderr = nu * math.sqrt(2.0 / draws) * 3  # the tail is heavier than a Gaussian's
    site = Site("fc", 0, 0.0, 1.0, v_aa=0.0, v_bb=2.0, v_ab=0.0, normed=1.0)
    expected = 2.0 / n + float(norm_excess([site], np.array([[float(n)]]))[0])
    assert expected - 2.0 / n > 10 * stderr
    assert nu == pytest.approx(expected, abs=4 * stderr)


def test_narrow_members_behind_norms_are_no_bargain() -> None:
    """Four members of 6 units score worse than one of 12 once a norm divides by their energy."""
    site = Site("fc", 0, 0.2, 0.8, v_aa=2.0, v_bb=2.0, v_ab=0.0)
    for normed, better in ((0.0, True), (0.8, False)):
        sites = chain_sites(["a", "b"])
        sites = (*sites, replace(site, normed=normed))
        narrow = MEASURES["log-variance"].region(sites, Design(4, (6, 6)))
        wide = MEASURES["log-variance"].region(sites, Design(1, (12, 12)))
        assert (narrow < wide) is better
