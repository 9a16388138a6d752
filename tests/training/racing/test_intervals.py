"""Student's intervals of a race."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cerewrite.training.racing.intervals import QUANTILES, mean_interval, ratio_interval


def test_quantiles_are_students() -> None:
    wanted = stats.t.ppf(0.975, np.arange(1, len(QUANTILES) + 1))
    assert np.allclose(QUANTILES, wanted, atol=6e-4)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    trials = 2000
    held = sum(
        found.low <= 0.0 <= found.high
        for found in map(mean_interval, rng.normal(size=(trials, 5)).tolist())
    )
    error = math.sqrt(0.95 * 0.05 / trials)
    assert abs(held / trials - 0.95) < 4 * error < 0.02


def test_too_few_values_have_no_ends() -> None:
    assert mean_interval([1.0]).high == math.inf and math.isnan(mean_interval([]).value)


def test_ratios_are_of_pairs() -> None:
    found = ratio_interval([2.0, 40.0, 6.0], [1.0, 20.0, 3.0])
    assert found is not None and found.low == pytest.approx(2.0) == found.high
    assert ratio_interval([1.0, -1.0], [1.0, 1.0]) is None
