"""Gaussian moments of pointwise functions: E phi^2, E phi'^2 and the spread of unit energies.

Any callable on a tensor will do: the integrals are taken on the function itself and on its
derivative by autograd, over a fine uniform grid, which is exact to rounding for smooth
functions and to about 1e-6 for functions with kinks (Gauss-Hermite nodes lose three digits
there). THEORY 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]

_NODES = 8192
_REACH = 9.0
_ORDERS = 48


@lru_cache(maxsize=1)
def gaussian_grid() -> tuple[Array, Array, Array]:
    """Nodes, Gaussian weights and normalised Hermite polynomials ``[orders, nodes]``."""
    step = 2 * _REACH / _NODES
    nodes: Array = np.linspace(-_REACH + step / 2, _REACH - step / 2, _NODES)
    weights: Array = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    hermite = np.empty((_ORDERS, _NODES))
    hermite[0] = 1.0
    hermite[1] = nodes
    for k in range(1, _ORDERS - 1):
        hermite[k + 1] = (nodes * hermite[k] - math.sqrt(k) * hermite[k - 1]) / math.sqrt(k + 1)
    return nodes, weights, hermite


@dataclass(frozen=True, slots=True)
class EnergyMoments:
    """What a pointwise function does to Gaussian pre-activations ``z ~ N(0, q)``.

    Attributes:
        forward: E[phi(z)^2].
        backward: E[phi'(z)^2].
        forward_slope: its derivative with respect to q.
        backward_slope: likewise, for E[phi'(z)^2].
        alpha, beta: Hermite coefficients of the normalised energies phi^2 and phi'^2, so that
            ``sum_k alpha[k]^2 rho^k`` is E[phi^2(z) phi^2(z')] / E[phi^2]^2 at correlation rho.
        aa_total, bb_total, ab_total: the sums of alpha^2, beta^2, alpha beta at rho = 1, exact.
    """

    forward: float
    backward: float
    forward_slope: float
    backward_slope: float
    alpha: Array
    beta: Array
    aa_total: float
    bb_total: float
    ab_total: float

    def spread(self, fresh: float, fixed: tuple[int, ...] = ()) -> tuple[float, float, float]:
        """Relative (co)variances (v_aa, v_bb, v_ab) made by the fresh share of z.

        With z the sum of an old and a fresh part and rho = 1 - fresh their overlap,
        ``v = C(1) - C(rho)``; the backward signal is an independent Gaussian with the same
        overlap, which brings the factors 3 and ``1 + 2 rho^2``. For fresh = 1 this is
        THEORY 4; for the identity it is the residual stream's ``2 (1 - (1 - r)^2)``.

        Args:
            fresh: share of the variance of z that the layer's own weights made, in [0, 1].
            fixed: Hermite orders that a norm over the units holds still: 2 where it fixes
                their energy, 1 where it fixes their mean.

        Example:
            >>> relu = energy_moments(torch.relu, 1.0)
            >>> [round(v, 3) for v in relu.spread(1.0)]
            [5.0, 5.0, 1.0]
        """
        rho = 1.0 - fresh
        powers = rho ** np.arange(_ORDERS)
        aa, bb, ab = self.alpha**2, self.beta**2, self.alpha * self.beta
        v_aa = self.aa_total - float(aa @ powers)
        v_bb = 3 * self.bb_total - float(bb @ powers) * (1 + 2 * rho * rho)
        v_ab = self.ab_total - float(ab @ powers)
        for order in fixed:
            moved = 1.0 - powers[order]
            v_aa -= aa[order] * moved
            v_bb -= bb[order] * moved
            v_ab -= ab[order] * moved
        return float(v_aa), float(v_bb), float(v_ab)


def energy_moments(function: Callable[[Any], Any] | None, q: float) -> EnergyMoments:
    """Moments of ``function`` under ``z ~ N(0, q)``; None stands for the identity.

    Args:
        function: a pointwise function of a float64 tensor.
        q: variance of z, positive.

    Returns:
        The moments; not finite where the function overflows.

    Example:
        >>> round(energy_moments(torch.relu, 2.0).forward, 6)
        1.0
    """
    nodes, weights, hermite = gaussian_grid()
    value, slope = evaluate(function, math.sqrt(q) * nodes)
    a, b = value**2, slope**2
    forward, backward = float(weights @ a), float(weights @ b)
    score = (nodes**2 - 1) / (2 * q)
    forward_slope = float(weights @ (a * score))
    backward_slope = float(weights @ (b * score))
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = a / forward, b / backward
    alpha, beta = hermite @ (weights * a), hermite @ (weights * b)
    return EnergyMoments(
        forward=forward,
        backward=backward,
        forward_slope=forward_slope,
        backward_slope=backward_slope,
        alpha=alpha,
        beta=beta,
        aa_total=float(weights @ (a * a)),
        bb_total=float(weights @ (b * b)),
        ab_total=float(weights @ (a * b)),
    )


def evaluate(function: Callable[[Any], Any] | None, z: Array) -> tuple[Array, Array]:
    """A function and its derivative on an array of points."""
    if function is None:
        return z, np.ones_like(z)
    with torch.enable_grad():
        point = torch.from_numpy(z).requires_grad_()
        value = function(point.clone())
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), point)
        else:
            slope = torch.zeros_like(point)
    return value.detach().numpy(), slope.numpy()
