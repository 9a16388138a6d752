"""Relative and logarithmic variance of a heavy-tailed positive sample, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


CLEAR = 3.0
"""Standard errors beyond which two figures differ."""
APART = 0.2
"""Relative difference below which they agree all the same."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A statistic with its standard error by the delete-one jackknife, both dimensionless."""

    value: float
    stderr: float


def relative_variance(sample: Sequence[float] | Array) -> Ratio:
    """``Var[K] / E[K]^2`` of a positive sample.

    Args:
        sample: at least three values.

    Example:
        >>> draws = np.exp(0.3 * np.random.default_rng(0).standard_normal(20_000))
        >>> ratio = relative_variance(draws)
        >>> abs(ratio.value - np.expm1(0.09)) < 3 * ratio.stderr < 0.01
        True
    """
    k = np.asarray(sample, dtype=np.float64)
    return _jackknife(k / k.mean(), lambda mean, variance: variance / mean**2)


def log_variance(sample: Sequence[float] | Array) -> Ratio:
    """``Var[log K]`` of a positive sample of at least three values.

    Example:
        >>> round(log_variance(np.exp([1.0, 2.0, 3.0])).value, 9)
        1.0
    """
    log = np.log(np.asarray(sample, dtype=np.float64))
    return _jackknife(log - log.mean(), lambda mean, variance: variance)


def _jackknife(k: Array, statistic: Callable[[Array, Array], Array]) -> Ratio:
    """A function of mean and variance on the whole sample, and its error from n subsamples."""
    value = statistic(np.array(k.mean()), np.array(k.var(ddof=1)))
    return with_error(float(value), statistic(*left_out(k)))


def left_out(k: Array) -> tuple[Array, Array]:
    """Means and variances of a sample without each of its values."""
    count = len(k)
    mean = (k.sum() - k) / (count - 1)
    variance = ((k**2).sum() - k**2 - (count - 1) * mean**2) / (count - 2)
    return mean, variance


def with_error(value: float, left: Array) -> Ratio:
    """A statistic with the error that its values without each of the sample's give."""
    spread = (len(left) - 1) / len(left) * float(((left - left.mean()) ** 2).sum())
    return Ratio(value, math.sqrt(spread))


def needed_draws(spread: float, precision: float) -> float:
    """Draws for a relative standard error of nu, if log K were Gaussian of variance ``spread``.

    With ``w = exp(spread)`` and ``nu = w - 1``, the delta method on the first two moments gives
    ``R (stderr / nu)^2 = (w / (w - 1))^2 (w^4 - 4 w^2 + 4 w - 1)``, which tends to 2 for small
    nu and grows as ``w^4``: the price of a heavy tail.

    Example:
        >>> [round(needed_draws(s, 0.1)) for s in (1e-3, 0.3, 1.0)]
        [201, 642, 8738]
    """
    if spread < 1e-6:
        return 2.0 / precision**2
    w = math.exp(min(spread, 100.0))
    return (w / (w - 1)) ** 2 * (w**4 - 4 * w * w + 4 * w - 1) / precision**2


def differ(one: Ratio, other: Ratio) -> bool:
    """Whether two figures differ beyond 3 standard errors and 20 %.

    Example:
        >>> differ(Ratio(1.5, 0.1), Ratio(1.0, 0.05)), differ(Ratio(1.1, 0.01), Ratio(1.0, 0.01))
        (True, False)
    """
    far = abs(one.value - other.value) > CLEAR * math.hypot(one.stderr, other.stderr)
    return far and abs(one.value - other.value) > APART * other.value


def combine(one: Ratio, other: Ratio) -> Ratio:
    """Two estimates of one figure, weighted by their inverse variances.

    Example:
        >>> both = combine(Ratio(1.2, 0.2), Ratio(1.0, 0.1))
        >>> round(both.value, 6), round(both.stderr, 6)
        (1.04, 0.089443)
    """
    if not (one.stderr > 0 and other.stderr > 0):
        return one if one.stderr <= other.stderr else other
    a, b = one.stderr**-2, other.stderr**-2
    return Ratio((a * one.value + b * other.value) / (a + b), (a + b) ** -0.5)
