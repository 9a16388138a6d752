"""Two models measured on common random numbers: the ratio of a measure, with its error."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from cerewrite.estimators.draws.statistics import Ratio, left_out, with_error
from cerewrite.estimators.draws.subject import Subject

FEWEST_PAIRS = 8
"""Pairs below which a ratio of variances says nothing."""


def paired_kernels(
    first: Subject, second: Subject, *, draws: int, seconds: float
) -> tuple[list[float], list[float]]:
    """K of two models, draw by draw with the same seeds, within a time limit.

    Args:
        first: one model as a subject.
        second: the other one.
        draws: pairs, at most.
        seconds: time limit; infinite for all pairs.

    Raises:
        AnalysisError: if a model raises, or a draw is not finite.
    """
    until = time.perf_counter() + seconds
    ones: list[float] = []
    others: list[float] = []
    for index in range(draws):
        ones.append(first.kernel(index))
        others.append(second.kernel(index))
        if time.perf_counter() > until:
            break
    return ones, others


def log_variance_ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """``Var[log K_2] / Var[log K_1]`` of paired positive draws; the error by leaving out pairs.

    Args:
        first: K of one model, at least four draws.
        second: K of the other, draw by draw.

    Example:
        >>> z = np.random.default_rng(0).standard_normal((2, 4000))
        >>> ratio = log_variance_ratio(np.exp(z[0]), np.exp(0.5 * z[1]))
        >>> abs(ratio.value - 0.25) < 3 * ratio.stderr < 0.03
        True
    """
    one, other = (np.log(np.asarray(x, dtype=np.float64)) for x in (first, second))
    value = other.var(ddof=1) / one.var(ddof=1)
    return with_error(float(value), left_out(other)[1] / left_out(one)[1])


def nu_ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Relative variance of the second over that of the first, likewise.

    Args:
        first: K of one model, at least four draws.
        second: K of the other, draw by draw.

    Example:
        >>> round(nu_ratio([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]).value, 9)
        1.0
    """
    nus, left = [], []
    for sample in (first, second):
        k = np.asarray(sample, dtype=np.float64) / float(np.mean(sample))
        nus.append(float(k.var(ddof=1)))
        mean, variance = left_out(k)
        left.append(variance / mean**2)
    return with_error(nus[1] / nus[0], left[1] / left[0])
