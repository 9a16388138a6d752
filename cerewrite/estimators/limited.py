"""Draws within a time limit: how many, and when they stop (docs/theory.md, section 31)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cerewrite.errors import UsageError
from cerewrite.estimators.base import Assumption
from cerewrite.estimators.draws import Subject, relative_variance
from cerewrite.estimators.monte_carlo import FEWEST, drawn, parts, too_few

SECONDS = 20.0
"""Default time limit."""
MOST = 512
"""Draws, if the time allows: Var[log K] to 6 %."""
SPLITTING = 8
"""Jackknife draws, at most: one for every 8 plain ones."""
FIRST = 2
"""Draws that are timed before the others are counted out."""
DEARER = 6.0
"""Time of a jackknife draw over that of a plain one, about."""
HOPELESS = 16
"""Dead draws after which none is expected to be alive."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many draws are made, and until when.

    Attributes:
        draws: plain draws.
        splitting: jackknife draws.
        until: when to stop early, by `time.perf_counter`; infinite where draws were asked for.
        each: seconds of one plain draw.
    """

    draws: int
    splitting: int
    until: float
    each: float


def first_draws(subject: Subject, assumption: Assumption) -> tuple[list[float], Count]:
    """The draws that are timed, and how many shall follow."""
    start = time.perf_counter()
    kernels = [subject.kernel(0)]
    warm = time.perf_counter()
    kernels += [subject.kernel(index) for index in range(1, FIRST)]
    each = (time.perf_counter() - warm) / (FIRST - 1)
    if assumption.draws is not None:
        if assumption.draws < FEWEST:
            raise too_few(assumption.draws, UsageError)
        wanted = assumption.draws
        return kernels, Count(wanted, splitting_draws(wanted), math.inf, each)
    limit = SECONDS if assumption.seconds is None else assumption.seconds
    wanted = min(MOST, affordable(limit, each))
    return kernels, Count(wanted, splitting_draws(wanted), start + limit, each)


def affordable(seconds: float, each: float) -> int:
    """Draws that fit a time limit together with their jackknife draws.

    Args:
        seconds: the limit.
        each: seconds of one plain draw, above 0.

    Example:
        >>> affordable(20.0, 0.1), affordable(20.0, 1.0), affordable(20.0, 11.0)
        (152, 11, 1)
    """
    many = seconds / each - DEARER * SPLITTING
    few = seconds / (each * (1.0 + DEARER / SPLITTING))
    return int(max(many, few, 0.0))


def splitting_draws(draws: int) -> int:
    """Jackknife draws beside so many plain ones: an eighth, from 2 to 8."""
    return max(2, min(SPLITTING, draws // 8))


def more_draws(
    subject: Subject, assumption: Assumption, count: Count, first: Sequence[float]
) -> list[float]:
    """Kernels of the first draws and of those behind them, until enough or the time is up."""
    kernels = list(first)
    size = 1 if assumption.executor is None else FEWEST
    for chunk in drawn(subject, parts(len(kernels), count.draws, size), assumption.executor):
        before = len(kernels)
        kernels += chunk
        made = len(kernels)
        known = sum(kernel > 0 for kernel in kernels) > 2
        if assumption.progress is not None and made // FEWEST > before // FEWEST:
            so_far = relative_variance(kernels).value if known else 0.0
            assumption.progress(made, count.draws, so_far)
        if made >= FEWEST and time.perf_counter() > count.until:
            break
        if made >= HOPELESS and not any(kernels):
            break
        if assumption.precision is not None and made >= FEWEST and known:
            nu = relative_variance(kernels)
            if nu.stderr <= assumption.precision * nu.value:
                break
    return kernels
