"""Points of independent standard normal variables: a square grid, and low-discrepancy clouds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from cerewrite.kernel.units import Array

_PLANE = 160
_PLANE_REACH = 6.5
FEW = 128
"""Dimensions up to which a cloud costs next to nothing."""


@lru_cache(maxsize=1)
def plane() -> tuple[Array, Array, Array]:
    """A square grid: both coordinates and the weight of each point."""
    step = 2 * _PLANE_REACH / _PLANE
    line = np.linspace(-_PLANE_REACH + step / 2, _PLANE_REACH - step / 2, _PLANE)
    across, down = (axis.ravel() for axis in np.meshgrid(line, line, indexing="ij"))
    weights: Array = np.exp(-0.5 * (across**2 + down**2))
    return across, down, weights / weights.sum()


@lru_cache(maxsize=4)
def sobol_normal(points: int, dimensions: int) -> Array:
    """Low-discrepancy points of unit covariance, ``[dimensions, points]``."""
    normal = normal_points(dimensions, points, seed=0)
    normal = normal - normal.mean(1, keepdims=True)
    factor = np.linalg.cholesky(normal @ normal.T / points)
    if dimensions <= FEW:
        return np.ascontiguousarray(np.linalg.solve(factor, normal))
    pair = (torch.from_numpy(np.ascontiguousarray(x)) for x in (factor, normal))
    uncorrelated: Array = torch.linalg.solve_triangular(*pair, upper=False).contiguous().numpy()
    return uncorrelated


def normal_points(dimensions: int, count: int, seed: int) -> Array:
    """Scrambled Sobol points as independent standard normal variables, ``[dimensions, count]``."""
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    uniform = engine.draw(count, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    normal: Array = torch.special.ndtri(uniform).numpy().T
    return normal


def columns_for(terms: int) -> int:
    """Dimensions of the cloud for so many terms: steps of 32, in doublings beyond `FEW`.

    Values at the points of a narrower cloud are of no use on a wider one, so that there must be
    few widenings; expectations that were taken stay.
    """
    return 32 * math.ceil(terms / 32) if terms <= FEW else 1 << (terms - 1).bit_length()


def points_for(layers: int) -> int:
    """Low-discrepancy points, fewer for models with more layers."""
    return 8192 if layers <= 32 else 4096 if layers <= 128 else 2048
