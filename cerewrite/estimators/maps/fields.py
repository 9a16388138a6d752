"""Second moments of maps: what one unit's values at pairs of points do along the operators.

A point is one position of one example. Matrices over points hold a unit's second moments and its
tangent kernel (docs/theory.md, section 28); they follow layers by averages over kernel elements,
pointwise functions by the kernels' dual (Hermite series in the correlation) and norms by rescaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Move = Callable[[Tensor], Tensor]
"""A linear map of points, ``[rows, points]`` to ``[rows, points]``."""

_NODES = 512
_REACH = 8.0
_ORDERS = 24
_SMALLEST = 1e-12
_JITTER = 1e-9


def both(move: Move, moments: Tensor) -> Tensor:
    """A linear map of fields, applied to rows and columns of a matrix over points."""
    return move(move(moments).T).T


def convolved(moments: Tensor, index: Tensor) -> Tensor:
    """The mean over kernel elements of moments between the points that two outputs read.

    Args:
        moments: ``[points, points]``.
        index: the point read plus 1, 0 for padding, ``[kernel, outputs]``.
    """
    padded = functional.pad(moments, (1, 0, 1, 0))
    total = sum(padded[row][:, row] for row in index)
    assert isinstance(total, Tensor)
    return total / len(index)


def patches(
    shape: tuple[int, ...],
    examples: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """Which point each kernel element reads for each output: see `convolved`. Maps are 2-d."""
    count = math.prod(shape)
    at = torch.arange(1, count + 1, dtype=torch.float64).view(1, 1, *shape)
    index = functional.unfold(at, kernel, dilation, padding, stride)[0].long()
    shift = count * torch.arange(examples).view(1, -1, 1)
    index = torch.where(index[:, None] > 0, index[:, None] + shift, 0)
    return index.flatten(1)


@dataclass(frozen=True, slots=True)
class Field:
    """A unit's moments over points.

    Attributes:
        sigma: its second moments, means included, ``[points, points]``.
        theta: its tangent kernel, likewise.
        mean: its mean, ``[points]``.
    """

    sigma: Tensor
    theta: Tensor
    mean: Tensor

    def moved(self, move: Move) -> Field:
        """Behind a linear map of points."""
        mean = move(self.mean[None])[0]
        return Field(both(move, self.sigma), both(move, self.theta), mean)

    def plus(self, other: Field) -> Field:
        """The sum with an independent unit."""
        cross = torch.outer(self.mean, other.mean)
        sigma = self.sigma + other.sigma + cross + cross.T
        return Field(sigma, self.theta + other.theta, self.mean + other.mean)


def dual(function: Callable[..., Any] | None, field: Field) -> Field:
    """Moments behind a pointwise function of Gaussian fields.

    ``E[phi(z) phi(z')] = sum_k a_k(z) a_k(z') c^k`` with normalised Hermite coefficients a_k and
    the correlation c; the orders left out stand at the last power, so that c = 1 is exact.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> round(float(dual(torch.relu, Field(one, one, torch.zeros_like(one[0]))).sigma), 6)
        0.5
    """
    if function is None:
        return field
    nodes, weights, hermite = _hermite()
    c, root = _recomputed(_correlation, field)
    point = field.mean[:, None] + root[:, None] * nodes
    if not point.requires_grad:
        point = point.requires_grad_()
    value = function(point.clone())
    (slope,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    sigma = _series(value, c, weights, hermite)
    theta = field.theta * _series(slope, c, weights, hermite)
    return Field(sigma, theta, value @ weights)


def _recomputed(step: Callable[..., Any], *args: Any) -> Any:
    """A step whose matrices are made again for the derivative instead of kept."""
    return checkpoint(step, *args, use_reentrant=False, preserve_rng_state=False)


def _correlation(field: Field) -> tuple[Tensor, Tensor]:
    """Correlations between points and standard deviations at them."""
    covariance = field.sigma - torch.outer(field.mean, field.mean)
    root = covariance.diagonal().clamp_min(_SMALLEST).sqrt()
    c = (covariance / (root[:, None] * root)).clamp(-1.0, 1.0)
    return c.masked_fill(torch.eye(len(root), dtype=torch.bool), 1.0), root


class _Series(torch.autograd.Function):
    """``sum_k a_k a_k' c^k`` by Horner's rule: a few matrices live, whatever the order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, c: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        parts = values @ rows.T
        total = (values * weights) @ values.T - parts @ parts.T
        slope = torch.zeros_like(c)
        for order in reversed(range(_ORDERS)):
            slope.mul_(c).add_(total)
            part = parts[:, order]
            total.mul_(c).addr_(part, part)
        ctx.save_for_backward(values, c, weights, rows, parts, slope)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, c, weights, rows, parts, slope = ctx.saved_tensors
        both_ways = grads[0] + grads[0].T
        rest = both_ways * c**_ORDERS
        power, found = both_ways, torch.empty_like(parts)
        for order in range(_ORDERS):
            found[:, order] = power @ parts[:, order]
            power = power * c
        found -= rest @ parts
        return rest @ (values * weights) + found @ rows, grads[0] * slope, None, None


def _series(values: Tensor, c: Tensor, weights: Tensor, hermite: Tensor) -> Tensor:
    total: Tensor = _Series.apply(values, c, weights, hermite * weights)  # type: ignore[no-untyped-call]
    return total


@lru_cache(maxsize=1)
def _hermite() -> tuple[Tensor, Tensor, Tensor]:
    step = 2 * _REACH / _NODES
    nodes = torch.linspace(-_REACH + step / 2, _REACH - step / 2, _NODES, dtype=torch.float64)
    weights = torch.exp(-0.5 * nodes**2)
    rows = [torch.ones_like(nodes), nodes]
    for k in range(1, _ORDERS - 1):
        rows.append((nodes * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return nodes, weights / weights.sum(), torch.stack(rows)


def batch_normed(field: Field, gain: float) -> Field:
    """A norm of each unit over all points: centred, scaled, its gradient projected likewise."""
    found: Field = _recomputed(_batch_normed, field, gain)
    return found


def _batch_normed(field: Field, gain: float) -> Field:
    centred, kernel = both(_centre, field.sigma), both(_centre, field.theta)
    variance = centred.diagonal().mean().clamp_min(_SMALLEST)
    unit, kernel, count = centred / variance, kernel / variance, len(centred)
    across = unit @ kernel / count
    twice = unit * across.diagonal().sum() / count + 2 * across @ unit / count
    mean = _centre(field.mean) * (gain / variance).sqrt()
    return Field(gain * unit, gain * (kernel - across - across.T + twice), mean)


def _centre(field: Tensor) -> Tensor:
    return field - field.mean(-1, keepdim=True)


def batch_normed_units(units: Tensor, gain: float) -> Tensor:
    """The same of samples of units, ``[units, points]``."""
    found: Tensor = _recomputed(_normed_units, units, gain)
    return found


def _normed_units(units: Tensor, gain: float) -> Tensor:
    centred = _centre(units)
    variance = centred.square().mean(-1, keepdim=True).clamp_min(_SMALLEST)
    return math.sqrt(gain) * centred / variance.sqrt()


def draw(covariance: Tensor, noise: Tensor) -> Tensor:
    """Gaussian fields of a covariance, ``[samples, points]``, from standard normal noise."""
    symmetric = (covariance + covariance.T) / 2
    jitter = _JITTER * float(symmetric.diagonal().mean().abs())
    lower, failed = torch.linalg.cholesky_ex(symmetric + jitter * torch.eye(len(symmetric)))
    if not bool(failed):
        fields: Tensor = noise @ lower.T
        return fields
    values, vectors = torch.linalg.eigh(symmetric)
    root: Tensor = vectors * values.clamp_min(0.0).sqrt()
    return noise @ root.T
