r"""Nu beyond the leading order: every average over units drawn, and K propagated.

Layers of finite width enter K through averages over their units (`influence.Noise`). To leading
order log K follows them linearly and nu is the sum of kappa. Beyond it, K is propagated for many
draws of all averages at once: log-normal factors of the energies with the covariances found,
which makes second moments of products exact, as the recursion of docs/theory.md, section 3, needs;
Gaussian shifts of means. The draws are low-discrepancy points, the first along the gradient of
log K, and the linear part, whose moments are known, is a control variate: some tenths of a per
cent remain. The formulas are in docs/theory.md, section 21.
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
_LARGEST = 30.0
_HUGE = 1e100
_TILT = 1.5
"""Draws lean this many deviations of log K towards large K: half way to where K^2 is made."""


class Draws:
    """Noise for every slot, in the order in which it is asked for.

    Args:
        noise: shares and covariances of the slots.
        shifts: per slot, whether it is a shift of a mean instead of a factor.
    """

    def __init__(self, noise: Noise, shifts: Sequence[bool]) -> None:
        shift = np.array(shifts, dtype=bool)
        factor = ~shift
        roots = _roots(noise, factor)
        live = np.sort(np.concatenate([slots for slots, _ in roots]))
        effective_batch_size = [np.searchsorted(live, slots) for slots, _ in roots]
        shares, along, half = noise.shares[live], np.empty(len(live)), np.empty(len(live))
        for at, (_, root) in zip(effective_batch_size, roots, strict=True):
            along[at] = root @ shares[at]
            half[at] = (root**2).sum(1) / 2
        points = _points(len(live)).copy()
        tilt = _TILT * min(float(np.linalg.norm(along)), _LARGEST**0.5)
        points[:1] += tilt
        self._weights = np.exp(tilt**2 / 2 - tilt * points[0]) / points.shape[1]
        _reflect(points, along)
        draws = np.zeros((len(live), 1 + points.shape[1]))
        for at, (_, root) in zip(effective_batch_size, roots, strict=True):
            draws[at, 1:] = root @ points[at]
        self._linear = shares @ draws[:, 1:]
        self._total = float(along @ along)
        factors = np.flatnonzero(factor[live])
        draws[factors] = np.exp(draws[factors] - half[factors, None])
        draws[factors, 0] = 1.0
        none = [torch.full((1,), float(not at), dtype=torch.float64) for at in shifts]
        found = dict(zip(live.tolist(), torch.from_numpy(draws), strict=True))
        self._draws = iter([found.get(slot, flat) for slot, flat in enumerate(none)])

    def __call__(self, shift: bool) -> Tensor:
        """The next slot's noise: nominal, then all draws."""
        noise: Tensor = next(self._draws)
        return noise

    def relative_variance(self, kernel: Array) -> float:
        """Nu from K of all draws relative to its nominal value.

        Raises:
            AnalysisError: if K of a single draw overflows: nu is beyond what draws can tell.
        """
        total = min(self._total, _LARGEST)
        kernel = np.clip(np.nan_to_num(kernel, nan=_HUGE), 0.0, _HUGE)
        plain = np.exp(np.minimum(self._linear - total / 2, 700.0))
        if not plain.max(initial=0.0) < _HUGE:
            raise AnalysisError(
                f"the kernel of single draws exceeds {_HUGE:g} times its nominal value",
                advice="nu is out of the closed form's reach: try --gain he, or measure it",
            )
        mean = 1.0 + float(self._weights @ (kernel - plain))
        square = math.exp(total) + float(self._weights @ (kernel**2 - plain**2))
        return max(square / mean**2 - 1.0, 0.0)


def _roots(noise: Noise, factor: NDArray[np.bool_]) -> list[tuple[Ids, Array]]:
    """Symmetric roots of the covariances of all draws that scatter, class by class."""
    found = []
    for slots, scatter in noise.scatter:
        both = factor[slots, None] & factor[None, slots]
        variance = np.where(both, np.log1p(np.maximum(scatter, -0.99)), scatter)
        live = np.flatnonzero(np.diag(variance) > 0)
        values, vectors = np.linalg.eigh(variance[np.ix_(live, live)])
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        found.append((slots[live], root))
    return found


def _reflect(points: Array, along: Array) -> None:
    """Turn points, in place, so that their first axis points along a vector."""
    size = float(np.linalg.norm(along))
    axis = np.zeros_like(along)
    axis[:1] = 1.0
    normal = axis - along / size if size else np.zeros_like(along)
    length = float(normal @ normal)
    if length > 1e-24:
        points -= np.outer(2 / length * normal, normal @ points)


@lru_cache(maxsize=4)
def _cloud(dimensions: int, count: int) -> Array:
    return normal_points(dimensions, count, seed=1)


def _points(dimensions: int) -> Array:
    count = _DRAWS if dimensions <= _MANY_SLOTS else _FEWER
    return _cloud(16 * math.ceil(max(dimensions, 1) / 16), count)[:dimensions]
