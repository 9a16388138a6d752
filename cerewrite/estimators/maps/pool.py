"""Pools of maps: averages, which are linear, and maxima, whose moments are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cerewrite.errors import AnalysisError
from cerewrite.estimators.maps.fields import Field, Move, both, patches
from cerewrite.ir import Op

_ROWS = 128
"""Samples behind the tangent kernel of a maximum over a map without a matrix."""


def refused(reason: str) -> AnalysisError:
    """Why there is no closed form on maps."""
    return AnalysisError(
        f"no spatial factor in closed form: {reason}",
        advice="use --estimator jackknife, which measures it, or analytic, which takes 1",
    )


def average(op: Op, shape: tuple[int, ...], examples: int) -> tuple[Move, tuple[int, ...]]:
    """An average over positions as a linear map of fields."""
    outer = tuple(op.shape[2:])
    if prod(outer) == 1 and ("avg" in op.target or op.target == "mean"):
        return lambda m: m.view(len(m), examples, -1).mean(-1), outer
    if op.target in ("avg_pool2d", "adaptive_avg_pool2d") and len(shape) == 2:
        args, kwargs = op.args[1:], dict(op.kwargs or {})
        pool = getattr(functional, op.target)

        def move(m: Tensor) -> Tensor:
            maps = m.reshape(-1, 1, *shape)
            pooled: Tensor = pool(maps, *args, **kwargs)
            return pooled.reshape(len(m), -1)

        return move, outer
    raise refused(f"'{op.target}' has no rule for maps")


class Maximum:
    """A maximum over windows of two-dimensional maps.

    Args:
        op: the pool.
        shape: positions of one example in front of it.
        examples: how many there are.

    Attributes:
        shape: positions behind it.
        index: the point that each place in a window reads, plus 1, ``[window, outputs]``.
    """

    def __init__(self, op: Op, shape: tuple[int, ...], examples: int) -> None:
        if "max_pool2d" not in op.target or "adaptive" in op.target or len(shape) != 2:
            raise refused(f"'{op.target}' has no rule for maps")
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = {**dict(zip(names, op.args[1:], strict=False)), **dict(op.kwargs or {})}
        kernel = _pair(given["kernel_size"])
        stride = _pair(given.get("stride") or kernel)
        padding, dilation = _pair(given.get("padding", 0)), _pair(given.get("dilation", 1))
        self.index = patches(shape, examples, kernel, stride, padding, dilation)
        self.shape = tuple(op.shape[2:])
        if given.get("ceil_mode") and self.index.shape[1] != examples * prod(self.shape):
            raise refused("a pool in ceil mode")

    def windows(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Maxima of units ``[samples, points]``, and the places in the windows they come from."""
        padded = functional.pad(units, (1, 0), value=float("-inf"))
        found: tuple[Tensor, Tensor] = padded[:, self.index].max(1)
        return found

    def mean(self, units: Tensor) -> Tensor:
        """Averages over the same windows, padding as 0; linear."""
        return functional.pad(units, (1, 0))[:, self.index].mean(1)

    def sigma(self, maxima: Tensor, sigma: Tensor) -> Tensor:
        """Second moments of the maxima.

        Their value is that of the samples. Their derivative by the moments in front is that of
        the windows' averages, made up so that a common scale acts as it must.
        """
        measured = maxima.T @ maxima / len(maxima)
        smooth = both(self.mean, sigma)
        size = smooth.diagonal().sum()
        ratio = (measured.diagonal().sum() / size).detach()
        return ratio * smooth + (measured - ratio * smooth).detach() * (size / size.detach())

    def theta(self, places: Tensor, slopes: Tensor, theta: Tensor) -> Tensor:
        """Tangent kernel of the maxima: that of the points they come from, over the samples.

        Args:
            places: see `windows`.
            slopes: of the function in front, at the units, ``[samples, points]``.
            theta: kernel in front of that function.
        """
        padded, steep = (functional.pad(m, (1, 0)) for m in (theta, slopes))
        padded = functional.pad(padded, (0, 0, 1, 0))
        weights = [(places == j).to(steep) * steep[:, row] for j, row in enumerate(self.index)]
        total = torch.zeros((), dtype=theta.dtype)
        for row, weight in zip(self.index, weights, strict=True):
            for column, other in zip(self.index, weights, strict=True):
                total = total + padded[row][:, column] * (weight.T @ other / len(places))
        return total

    def factored(self, places: Tensor, slopes: Tensor, root: Tensor) -> Tensor:
        """The same for a kernel ``root root'``, from a few samples."""
        count = min(len(places), _ROWS)
        chosen = self.index[places[:count], torch.arange(places.shape[1])] - 1
        total = torch.zeros(places.shape[1], places.shape[1], dtype=root.dtype)
        for row, steep in zip(chosen, slopes, strict=False):
            own = root[row] * steep[row][:, None]
            total.addmm_(own, own.T)
        return total / count


def moments(
    pool: Maximum, units: Tensor, slopes: Tensor, field: Field, before: Tensor
) -> tuple[Tensor, Field]:
    """Samples and moments behind a maximum over a map that has matrices."""
    maxima, places = pool.windows(units)
    fixed = maxima.detach()
    theta = pool.theta(places, slopes.detach(), before)
    return maxima, Field(pool.sigma(fixed, field.sigma), theta, fixed.mean(0))


def _pair(given: Any) -> tuple[int, int]:
    if isinstance(given, int):
        return (given, given)
    found: Sequence[int] = tuple(given)
    return (found[0], found[-1])
