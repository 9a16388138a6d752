"""Intervals of a mean over seeds: Student's, for pairs of trainings that share seed and batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from cerewrite.ir.raced import Interval

QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t at 97.5 % for 1 to 30 degrees of freedom; beyond them the last is a bound."""


def mean_interval(values: Sequence[float]) -> Interval:
    """``mean +- t s / sqrt(n)``, 95 %; without ends where there are fewer than two values.

    Args:
        values: independent, about normal.

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> found.value, round(found.high, 2)
        (2.0, 4.48)
    """
    if not values:
        return Interval(math.nan, -math.inf, math.inf)
    middle, count = fmean(values), len(values)
    if count < 2:
        return Interval(middle, -math.inf, math.inf)
    half = QUANTILES[min(count - 1, len(QUANTILES)) - 1] * stdev(values) / math.sqrt(count)
    return Interval(middle, middle - half, middle + half)


def ratio_interval(left: Sequence[float], right: Sequence[float]) -> Interval | None:
    """Geometric mean of the ratios of pairs, with its interval; None unless all are positive.

    Args:
        left: one value per seed.
        right: of the same seeds, in the same order.

    Example:
        >>> found = ratio_interval([2.0, 4.0], [1.0, 2.0])
        >>> round(found.value, 9), round(found.high, 9)
        (2.0, 2.0)
    """
    if min((*left, *right), default=0.0) <= 0:
        return None
    logs = mean_interval([math.log(a / b) for a, b in zip(left, right, strict=True)])
    return Interval(_exp(logs.value), _exp(logs.low), _exp(logs.high))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
