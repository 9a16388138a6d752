"""The ranking of ResNet-50's designs: correlations, their intervals, the noise's ceiling."""

import numpy as np
import pytest

from benchmarks.resnet_designs import DESIGNS, NAMES, STORE, read
from benchmarks.resnet_report import (
    DOCUMENT,
    STATISTICS,
    Study,
    document,
    halves,
    interval,
    nu,
    spearman,
    study,
)


def made(sizes: np.ndarray, draws: int = 400) -> Study:
    """Log-normal kernels of given variances, and estimators that know them."""
    noise = np.random.default_rng(0).standard_normal((len(DESIGNS), draws))
    names = tuple(f"{m} x {n}" for m, n in DESIGNS)
    zero = np.zeros(len(DESIGNS))
    kernels = np.exp(np.sqrt(sizes)[:, None] * noise)
    return Study(names, kernels, dict.fromkeys(NAMES, sizes), dict.fromkeys(NAMES, zero), 6)


@pytest.mark.thorough
def test_designs_far_apart_are_ranked_and_near_ties_are_not() -> None:
    far, near = (made(0.02 * np.geomspace(1, top, len(DESIGNS))) for top in (64.0, 1.05))
    for statistic in STATISTICS.values():
        assert spearman(far.values["spatial"], statistic(far.kernels)) == 1.0
        assert interval(far, "spatial", statistic)[0] > 0.9
        assert np.median(halves(far, statistic)) > 0.95
        assert np.median(halves(near, statistic)) < 0.7


def test_nu_is_the_relative_variance() -> None:
    assert nu(np.array([[1.0, 3.0]])) == pytest.approx(0.5)


@pytest.mark.thorough
def test_the_document_is_made_of_what_is_stored() -> None:
    assert document(study(read())) == DOCUMENT.read_text(encoding="utf-8")
    assert STORE.exists() and len(DESIGNS) >= 8
