r"""``Var[log of the mean of m log-normal draws]``, by quadrature or table (docs/theory.md, eq. 97).

Let ``X`` be log-normal with log-variance ``S``, ``A`` the sum of ``m`` draws and ``E`` an
independent standard exponential. Then ``P(log E - log A > u) = phi(e^u)^m`` with the Laplace
transform ``phi(t) = E[exp(-t X)]``, and the variances of ``log E`` (which is ``pi^2 / 6``) and of
``log A`` add up. So ``Var[log A]`` is the variance of a one-dimensional density,
``m phi^(m-1) E[t X exp(-t X)]``, less ``pi^2 / 6``; both integrals are of smooth functions that
vanish at either end, where the trapezoidal rule converges faster than any power.

The table holds the logarithm of the ratio to ``log(1 + (e^S - 1) / m)``, which is exact for one
draw and for many: ``python -m cerewrite.planning.measures.log_normal`` writes it anew.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np

from cerewrite.planning.measures.base import FloatArray, IntArray

TABLE = Path(__file__).with_name("log_normal.npy")
LARGEST = 700.0
"""Largest log-variance in the table; beyond it the result grows in proportion."""
SIGMA_STEP = 0.1
"""Step of ``sqrt(S)`` in the table."""
OCTAVE = 4
"""Entries of the table per doubling of m."""
MOST = 20
"""Doublings of m in the table."""


def quadrature(spread: float, multiplicity: FloatArray | IntArray, step: float = 0.1) -> FloatArray:
    """``Var[log mean of m draws]`` to about 1e-9, by two nested trapezoidal rules.

    Args:
        spread: log-variance of a draw, in [0, 700].
        multiplicity: draws, ``[m]``, at least 1.
        step: step of the outer rule, in units of log.

    Returns:
        ``[m]``.

    Example:
        >>> quadrature(1.0, np.array([1, 2])).round(6).tolist()
        [1.0, 0.56713]
    """
    m = np.asarray(multiplicity, dtype=np.float64)[:, None]
    sigma = math.sqrt(spread)
    z = np.arange(-9.5, 9.5, min(0.1, 0.25 / max(sigma, 1e-9)))
    weight = np.exp(-0.5 * z * z)
    weight /= weight.sum()
    u = np.arange(-9.5 * sigma - math.log(m.max()) - 38.0, 9.5 * sigma + 6.0, step)
    energy = np.exp(np.minimum(u[:, None] + sigma * z, 50.0))
    decayed = np.exp(-energy)
    phi, rest = decayed @ weight, -np.expm1(-energy) @ weight
    with np.errstate(divide="ignore", invalid="ignore"):
        log_phi = np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), np.log(phi))
        density = m * np.exp((m - 1.0) * log_phi) * ((energy * decayed) @ weight)
    density = np.nan_to_num(density) * step
    mean = density @ u
    scatter = (density * (u - mean[:, None]) ** 2).sum(axis=1)
    return np.asarray(scatter - math.pi**2 / 6.0)


def base(spread: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
    """``log(1 + (e^S - 1) / m)``: exact for one draw, and for many of a small spread."""
    return np.asarray(np.log1p(np.expm1(spread) / multiplicity))


def make_table() -> FloatArray:
    """Logarithms of ``quadrature / base``, ``[sqrt(S), log2(m)]``; about a minute."""
    sigmas = np.arange(0.0, math.sqrt(LARGEST) + SIGMA_STEP, SIGMA_STEP)
    members = 2.0 ** (np.arange(MOST * OCTAVE + 1) / OCTAVE)
    table = np.zeros((len(sigmas), len(members)))
    for row, sigma in enumerate(sigmas[1:], start=1):
        spread = np.asarray(sigma**2)
        table[row] = np.log(quadrature(float(spread), members) / base(spread, members))
    table[:, 0] = 0.0
    return np.asarray(table)


@cache
def _table() -> FloatArray:
    return np.asarray(np.load(TABLE, allow_pickle=False), dtype=np.float64)


def log_mean_variance(spread: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
    """``Var[log of the mean of m log-normal draws]`` from the table; arguments are broadcast.

    Within 0.5 % of `quadrature` for m up to 4,096 and 0.9 % up to 2^20, where the table ends;
    beyond, the ratio to `base` stays what it is there, up to 40 % off. Monotone: it rises with
    the spread and falls with m.

    Args:
        spread: log-variance of one draw, at least 0.
        multiplicity: draws, at least 1.

    Returns:
        At least 0; equal to ``spread`` for one draw.

    Example:
        >>> log_mean_variance(np.array([1.0]), np.array([1, 2])).round(3).tolist()
        [1.0, 0.567]
    """
    table = _table()
    inside = np.minimum(spread, LARGEST)
    x = np.sqrt(inside) / SIGMA_STEP
    y = np.minimum(np.log2(multiplicity) * OCTAVE, MOST * OCTAVE)
    row = np.minimum(x.astype(np.intp), table.shape[0] - 2)
    column = np.minimum(y.astype(np.intp), table.shape[1] - 2)
    right, up = x - row, y - column
    flat, across = table.ravel(), table.shape[1]
    corner = row * across + column
    low = flat.take(corner) * (1.0 - right) + flat.take(corner + across) * right
    corner += 1
    high = flat.take(corner) * (1.0 - right) + flat.take(corner + across) * right
    value = base(inside, multiplicity) * np.exp(low + (high - low) * up)
    return np.asarray(value * np.maximum(spread / LARGEST, 1.0))


if __name__ == "__main__":
    np.save(TABLE, make_table().astype(np.float32), allow_pickle=False)
