r"""Batch norms of finite batches: an example is in its own statistics (docs/theory.md, section 23).

The values u of one channel over N places leave the norm as ``y = sqrt(N) P u / |P u|``, P taking
the mean away: a point on a sphere whose radius is gone. So, to first order in 1 / N:

* ``E[y^4] = 3 (N - 1) / (N + 1)`` for Gaussian u, instead of 3;
* where an example's energy alone grows by a factor, its y^2 grows by the power ``1 - 2 / N``: what
  is particular to an example is damped at every norm. Fresh noise of the examples' energies is
  taken relative to their mean first, which terms ``1 - 1 / N`` of its variance;
* ``dy_0/du_x = (delta_0x - (1 + y_0 y_x) / N) / s`` is a projection. The kernel behind the norm is
  that in front times ``p = 1 - (1 + y_0^2) / N`` over s^2. A share of about ``1 / N`` of it, by
  y_0^2, comes by way of the other examples, whose kernels do not scatter with the example's;
* s^2 is that of a unit: ``E[1 / s^2] = N / ((N - 3) Var[u])`` and ``1 / s^2`` has the relative
  variance ``2 / (N - 5)``.

Examples whose features overlap span fewer directions: with c their correlations,
``1 / N = 1 / B + mean c^2`` for a batch of B. Maps are spatially constant, so that positions add
none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from cerewrite.ir import Op
from cerewrite.kernel.activation import gaussian_grid
from cerewrite.kernel.units import Array

LEAST = 8
"""Examples below which a batch is taken for an example input, not for what is trained on."""
ASSUMED = 32
"""Examples that are assumed then."""
_STEPS = 50.0
"""Effective sizes are rounded to this many steps per factor e, so that equal units are equal."""
_SLIGHT = 0.02


@dataclass(frozen=True, slots=True)
class Batch:
    """What a channel's statistics are taken over.

    Attributes:
        examples: how many.
    """

    examples: int

    def effective_batch_size(self, overlap: float) -> float:
        """N, at least 8.

        Args:
            overlap: root mean square of the correlation of two examples.

        Example:
            >>> Batch(32).effective_batch_size(0.0), round(Batch(32).effective_batch_size(0.3))
            (32.0, 8)
        """
        # eq. 63: 1 / N = 1 / B + mean c^2
        inverse = 1.0 / self.examples
        if overlap**2 < _SLIGHT * inverse:
            return float(max(self.examples, LEAST))
        steps = round(-_STEPS * math.log(inverse + overlap**2))
        return max(math.exp(steps / _STEPS), float(LEAST))

    def divided(self, own: Tensor, fresh: Tensor, overlap: float) -> Tensor:
        """What the statistics take from the energy of an example that only they read.

        Args:
            own: its energy, relative to its nominal one.
            fresh: the part of that which no norm has seen.
            overlap: as for `effective_batch_size`.
        """
        shared = min(1.0, 1.0 / self.examples + overlap**2)
        damped = 0.5 / self.effective_batch_size(overlap)  # `on_sphere` bends by the rest of 2 / N
        return fresh ** (math.sqrt(1.0 - shared) - 1.0) * own.clamp_min(1e-6) ** -damped


def batch_of(op: Op, shape: tuple[int, ...]) -> Batch:
    """The batch of a norm, from the shape ``[B, C, *positions]`` that it reads."""
    if op.target == "instance_norm":
        return Batch(1)
    return Batch(shape[0] if len(shape) > 1 and shape[0] >= LEAST else ASSUMED)


def on_sphere(x: Array, effective_batch_size: float) -> Array:
    """Standard normal numbers drawn in until their fourth moment is a sphere's; E[y^2] = 1."""
    # eq. 65: y = c_N x / sqrt(1 + x^2 / 2N), in place
    radius = x * x
    radius /= 2.0 * effective_batch_size
    radius += 1.0
    y: Array = _scale(effective_batch_size) * x
    y /= np.sqrt(radius, out=radius)
    return y


def steepness(y: Array, effective_batch_size: float) -> Array:
    """Norm of y's slopes by all values of its channel, in units of the deviation."""
    # eq. 67: sqrt((1 - (1 + y^2) / N) N / (N - 3)), in place
    squared: Array = y * y
    squared += 1.0
    squared /= effective_batch_size
    np.maximum(np.subtract(1.0, squared, out=squared), 0.0, out=squared)
    squared *= effective_batch_size / (effective_batch_size - 3.0)
    return np.sqrt(squared, out=squared)


def own_share(effective_batch_size: float) -> float:
    """The share of the kernel behind a norm that comes from the example's own (eq. 68)."""
    return 1.0 - 1.0 / effective_batch_size


def scatter(effective_batch_size: Array) -> Array:
    """Relative variance over units of 1 / s^2, with s the deviation that divides one (eq. 69)."""
    variance: Array = 2.0 / (effective_batch_size - 5.0)
    return variance


@lru_cache(maxsize=1024)
def _scale(effective_batch_size: float) -> float:
    # c_N of eq. 65, such that E[y^2] = 1
    nodes, weights = gaussian_grid()
    square = float(weights @ (nodes**2 / (1.0 + nodes**2 / (2.0 * effective_batch_size))))
    return 1.0 / math.sqrt(square)
