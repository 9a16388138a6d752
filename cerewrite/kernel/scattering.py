r"""Nu beyond the leading order: K under drawn noise of every average (docs/theory.md, section 21).

Layers of finite width enter K through averages over their units (`influence.Noise`). To leading
order log K is linear in them and nu is the sum of kappa. Beyond it, K is propagated for many draws
of all averages at once: log-normal factors on the energies with the covariances of section 16,
which makes second moments of products exact, as the recursion of section 3 needs, and Gaussian
shifts of means (eq. 58). The draws are low-discrepancy points whose first axis is the gradient of
log K, with importance sampling along it (eq. 59); the linear part, whose moments are known, is a
control variate (eq. 60). The error that remains is some tenths of a per cent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cerewrite.errors import AnalysisError
from cerewrite.kernel.influence import Ids, Noise
from cerewrite.kernel.points import normal_points
from cerewrite.kernel.units import Array

_DRAWS = 8192
_FEWER = 1024
_MANY_SLOTS = 96
"""Averages above which there are `_FEWER` draws."""
_LARGEST = 30.0
"""Largest variance of log K at leading order that the draws are tilted and corrected for."""
_HUGE = 1e100
_TILT = 1.5
"""Shift of the draws in deviations of log K, towards large K: half way to where K^2 is made."""


class Draws:
    """Noise for every slot, in the order in which it is asked for (docs/theory.md, eq. 58).

    Args:
        noise: shares f and covariances C of the slots.
        shifts: per slot, whether it is a shift of a mean instead of a factor on an energy.
    """

    def __init__(self, noise: Noise, shifts: Sequence[bool]) -> None:
        shift = np.array(shifts, dtype=bool)
        factor = ~shift
        # B = Sigma^(1/2), one block for each width class, over the slots that fluctuate
        roots = _roots(noise, factor)
        fluctuating = np.sort(np.concatenate([slots for slots, _ in roots]))
        positions = [np.searchsorted(fluctuating, slots) for slots, _ in roots]
        shares = noise.shares[fluctuating]
        # B f, the gradient of log K by the standard normal z; Sigma_ii / 2
        gradient, half = np.empty(len(fluctuating)), np.empty(len(fluctuating))
        for at, (_, root) in zip(positions, roots, strict=True):
            gradient[at] = root @ shares[at]
            half[at] = (root**2).sum(1) / 2
        # eq. 59: shift the first axis by tau, weigh by the ratio of the densities
        points = _points(len(fluctuating)).copy()
        tilt = _TILT * min(float(np.linalg.norm(gradient)), _LARGEST**0.5)
        points[:1] += tilt
        self._weights = np.exp(tilt**2 / 2 - tilt * points[0]) / points.shape[1]
        # turn the first axis onto B f; z has the same distribution in every orthonormal basis
        _reflect(points, gradient)
        # B z, behind a first column that stays 0: the nominal value
        draws = np.zeros((len(fluctuating), 1 + points.shape[1]))
        for at, (_, root) in zip(positions, roots, strict=True):
            draws[at, 1:] = root @ points[at]
        # the control variate of eq. 60: f . B z, and its variance S
        self._linear = shares @ draws[:, 1:]
        self._total = float(gradient @ gradient)
        # eq. 58: energies get log-normal factors of mean 1, means the Gaussian shifts B z
        factors = np.flatnonzero(factor[fluctuating])
        draws[factors] = np.exp(draws[factors] - half[factors, None])
        draws[factors, 0] = 1.0
        nominal = [torch.full((1,), float(not at), dtype=torch.float64) for at in shifts]
        by_slot = dict(zip(fluctuating.tolist(), torch.from_numpy(draws), strict=True))
        self._draws = iter([by_slot.get(slot, flat) for slot, flat in enumerate(nominal)])

    def __call__(self, shift: bool) -> Tensor:
        """The next slot's noise: its nominal value, then all draws."""
        noise: Tensor = next(self._draws)
        return noise

    def relative_variance(self, kernel: Array) -> float:
        """Nu from K under all draws, relative to its nominal value (docs/theory.md, eq. 60).

        Raises:
            AnalysisError: if K of a single draw overflows: nu is beyond what draws can tell.
        """
        total = min(self._total, _LARGEST)
        kernel = np.clip(np.nan_to_num(kernel, nan=_HUGE), 0.0, _HUGE)
        # l = exp(f . B z - S / 2), with E[l] = 1 and E[l^2] = e^S
        control = np.exp(np.minimum(self._linear - total / 2, 700.0))
        if not control.max(initial=0.0) < _HUGE:
            raise AnalysisError(
                f"the kernel of single draws exceeds {_HUGE:g} times its nominal value",
                advice="nu is out of the closed form's reach: try --gain he, or measure it",
            )
        # E[K] and E[K^2]: the known moments of l, corrected by weighted averages over the draws
        mean = 1.0 + float(self._weights @ (kernel - control))
        square = math.exp(total) + float(self._weights @ (kernel**2 - control**2))
        return max(square / mean**2 - 1.0, 0.0)


def _roots(noise: Noise, factor: NDArray[np.bool_]) -> list[tuple[Ids, Array]]:
    """Symmetric square roots B of Sigma (eq. 58) over the slots that fluctuate, class by class."""
    roots = []
    for slots, covariance in noise.scatter:
        # Sigma_ij = log(1 + C_ij) between two energies, C_ij otherwise
        both = factor[slots, None] & factor[None, slots]
        sigma = np.where(both, np.log1p(np.maximum(covariance, -0.99)), covariance)
        fluctuating = np.flatnonzero(np.diag(sigma) > 0)
        # log(1 + C) need not be positive semi-definite: negative eigenvalues count as 0
        values, vectors = np.linalg.eigh(sigma[np.ix_(fluctuating, fluctuating)])
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        roots.append((slots[fluctuating], root))
    return roots


def _reflect(points: Array, direction: Array) -> None:
    """Reflect points, in place, so that their first axis lies along a vector (Householder)."""
    size = float(np.linalg.norm(direction))
    axis = np.zeros_like(direction)
    axis[:1] = 1.0
    normal = axis - direction / size if size else np.zeros_like(direction)
    length = float(normal @ normal)
    if length > 1e-24:
        points -= np.outer(2 / length * normal, normal @ points)


@lru_cache(maxsize=4)
def _cached_points(dimensions: int, count: int) -> Array:
    return normal_points(dimensions, count, seed=1)


def _points(dimensions: int) -> Array:
    """Standard normal points, ``[dimensions, draws]``; drawn in steps of 16 dimensions, cached."""
    count = _DRAWS if dimensions <= _MANY_SLOTS else _FEWER
    return _cached_points(16 * math.ceil(max(dimensions, 1) / 16), count)[:dimensions]
