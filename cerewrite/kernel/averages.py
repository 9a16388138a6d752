"""Averages over points under several densities (docs/theory.md, eqs. 43 to 45)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cerewrite.kernel.activation import gaussian_grid
from cerewrite.kernel.points import plane
from cerewrite.kernel.units import Array, GaussianTerm, Tangent


def densities(weights: Array, noise: Array) -> Array:
    """Weights of points, then their derivatives by each term's relative variance.

    The density moves, not the function.

    Args:
        weights: weight of each point.
        noise: terms of unit variance, ``[terms, points]``.

    Returns:
        ``[1 + terms, points]``.
    """
    # eq. 44: w (zeta_k^2 - 1) / 2
    return np.concatenate([weights[None], weights * (noise**2 - 1) / 2])


@lru_cache(maxsize=3)
def on_grid(terms: int) -> Array:
    """The same on the grid for up to two terms, then twice by the logarithm of all variances."""
    if terms == 2:
        *axes, weights = plane()
        noise = np.array(axes)
    else:
        nodes, weights = gaussian_grid()
        noise = nodes[None, :][:terms]
    # eq. 45: w u and w (u^2 - sum_k zeta_k^2 / 2) with u = sum_k (zeta_k^2 - 1) / 2
    squares = (noise**2).sum(0)
    score = (squares - terms) / 2
    bends = weights * np.array([score, score**2 - squares / 2])
    return np.concatenate([densities(weights, noise), bends])


def log_curvature(base: Array, first: Array, second: Array) -> Array:
    """Second logarithmic derivatives, from an average and its derivatives."""
    safe = np.where(base != 0, base, 1.0)
    curvature: Array = np.where(base != 0, second / safe - (first / safe) ** 2, 0.0)
    return curvature


def averages(
    value: Array,
    tangents: dict[GaussianTerm, Tangent],
    terms: tuple[GaussianTerm, ...],
    over: Array,
) -> Array:
    """E[y^2], E[y], then E[slope^2] per term, under several densities.

    Those under the first are taken one by one, which rounds alike whatever the others are: on a
    grid with points next to a kink, averages behind it jump by 1e-5 with the last bit of a
    deviation.

    Args:
        value: y at every point.
        tangents: its slopes by the terms.
        terms: the terms.
        over: the densities, ``[densities, points]``.

    Returns:
        ``[densities, 2 + terms]``.
    """
    slopes = [tangents.get(term, 0.0) for term in terms]
    rows = {id(slope): slope**2 for slope in slopes if isinstance(slope, np.ndarray)}
    at = dict(zip(rows, range(2, 2 + len(rows)), strict=True))
    points = np.array([value**2, value, *rows.values()])
    each = np.empty((len(over), len(points)))
    each[0] = [over[0] @ row for row in points]
    each[1:] = over[1:] @ points.T
    whole = over.sum(1)
    columns = [each[:, 0], each[:, 1]]
    for slope in slopes:
        varies = isinstance(slope, np.ndarray)
        columns.append(each[:, at[id(slope)]] if varies else whole * slope**2)
    return np.stack(columns, 1)
