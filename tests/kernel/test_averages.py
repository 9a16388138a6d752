"""Averages under several densities: derivatives by variances, held against differences."""

from __future__ import annotations

import numpy as np
import pytest

from cerewrite.kernel.averages import averages, densities, log_curvature, on_grid
from cerewrite.kernel.points import plane
from cerewrite.kernel.units import Array, GaussianTerm
from cerewrite.kernel.values import scalar

LEAVES = tuple(GaussianTerm("", 0.0, 1.0, 0.0, 1.0, scalar(1.0), scalar(0.0)) for _ in range(2))


def cubic(scale: Array) -> tuple[Array, Array]:
    """``x + x y^2 / 2`` with both variances scaled: its averages under every density, and E."""
    across, down, weights = plane()
    x, y = across * scale[0] ** 0.5, down * scale[1] ** 0.5
    value = x + x * y**2 / 2
    slopes = dict(zip(LEAVES, (1 + y**2 / 2, x * y), strict=True))
    found = averages(value, slopes, LEAVES, on_grid(2))
    return found, np.array([weights @ value**2, weights @ value])


def test_derivatives_are_differences() -> None:
    found, expected = cubic(np.ones(2))
    assert found[0, :2] == pytest.approx(expected, abs=1e-12)
    for leaf in range(2):
        step = np.exp(1e-4 * np.eye(2)[leaf])
        moved = (cubic(step)[0][0] - cubic(1 / step)[0][0]) / 2e-4
        assert found[1 + leaf, 0] == pytest.approx(moved[0], rel=1e-5)
        assert found[1 + leaf, 0] != pytest.approx(1.01 * moved[0], rel=1e-3)


def test_bends_are_second_differences() -> None:
    base, *_, first, second = cubic(np.ones(2))[0]
    logs = [np.log(cubic(np.full(2, np.exp(s * 1e-3)))[0][0, 0]) for s in (-1, 0, 1)]
    curve = (logs[0] - 2 * logs[1] + logs[2]) / 1e-6
    assert log_curvature(base, first, second)[0] == pytest.approx(curve, rel=1e-3)


def test_constant_slopes_and_slopes_in_common() -> None:
    across, _, weights = plane()
    over = densities(weights, across[None])
    shared = across**2
    found = averages(across, dict.fromkeys(LEAVES, shared), LEAVES, over)
    assert found[:, 2] == pytest.approx(found[:, 3])
    assert found[0, 2] == pytest.approx(3.0, rel=1e-6)
    found = averages(across, {LEAVES[0]: 2.0}, LEAVES, over)
    assert found[0, 2:] == pytest.approx([4.0, 0.0])
    assert found[1, 2:] == pytest.approx([0.0, 0.0], abs=1e-7)
