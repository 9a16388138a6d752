"""Intervals, rank correlations and their bootstrap; all pure numpy, seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95
"""Confidence of every interval."""

FLAT = 1e-9
"""Rank variance below which a predictor is constant."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: the estimate.
        low, high: its 95 % interval.
    """

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """Through an increasing function."""
        return Interval(function(self.value), function(self.low), function(self.high))

    def side(self, null: float = 0.0) -> int:
        """1 if the interval is above ``null``, -1 if below, 0 if it holds it."""
        return int(self.low > null) - int(self.high < null)


def mean(values: Sequence[float]) -> Interval:
    """Student's interval of a mean, from two values on."""
    x = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def difference(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Welch's interval of ``mean(left) - mean(right)``, independent samples.

    Example:
        >>> difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).value
        0.0
    """
    x, y = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    a, b = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    gap = float(x.mean() - y.mean())
    if a + b == 0.0:
        return Interval(gap, gap, gap)
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(a + b))
    return Interval(gap, gap - half, gap + half)


def share(successes: int, trials: int) -> Interval:
    """Wilson's interval of a proportion.

    Example:
        >>> found = share(0, 8)
        >>> found.value, found.low, round(found.high, 3)
        (0.0, 0.0, 0.324)
    """
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    p, scale = successes / trials, 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / scale
    half = z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / scale
    return Interval(p, max(float(middle - half), 0.0), min(float(middle + half), 1.0))


def spread_ratio(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Ratio of two standard deviations, interval by Fisher's F (normal samples)."""
    x, y = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if x.std() == 0.0 or y.std() == 0.0:
        return Interval(float("nan"), 0.0, float("inf"))
    ratio = x.var(ddof=1) / y.var(ddof=1)
    low = ratio / stats.f.ppf((1 + LEVEL) / 2, len(x) - 1, len(y) - 1)
    high = ratio / stats.f.ppf((1 - LEVEL) / 2, len(x) - 1, len(y) - 1)
    return Interval(*(float(np.sqrt(v)) for v in (ratio, low, high)))


def ranks(values: Array) -> Array:
    """Ranks from 1, ties averaged.

    Example:
        >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    ordered = np.sort(values)
    return (ordered.searchsorted(values) + ordered.searchsorted(values, "right") + 1) / 2.0


def correlation(x: Array, y: Array) -> float:
    """Pearson's; NaN where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if min(x @ x, y @ y) > FLAT * len(x) else float("nan")


def spearman(x: Array, y: Array) -> float:
    """Rank correlation."""
    return correlation(ranks(x), ranks(y))


def partial_spearman(x: Array, y: Array, controls: Sequence[Array]) -> float:
    """Rank correlation of what the controls' ranks leave of both, by linear regression.

    Returns:
        NaN where the controls' ranks determine one of the two.

    Example:
        >>> x = np.array([1.0, 2.0, 3.0, 4.0])
        >>> partial_spearman(x, x, [x])
        nan
    """
    left, right = (_residual(ranks(v), [ranks(c) for c in controls]) for v in (x, y))
    return correlation(left, right)


def _residual(values: Array, controls: Sequence[Array]) -> Array:
    design = np.column_stack([np.ones(len(values)), *controls])
    fitted: Array = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return values - fitted


def within(values: Array, groups: Array) -> Array:
    """Ranks inside each group, shifted and scaled to a mean of 0 and a range of about 1."""
    result = np.zeros(len(values))
    for group in np.unique(groups):
        member = groups == group
        result[member] = (ranks(values[member]) - (member.sum() + 1) / 2) / member.sum()
    return result


def bootstrap(
    statistic: Callable[[NDArray[np.int64], Array, Array], Sequence[float]],
    groups: Array,
    outcomes: Array,
    *,
    draws: int = 1000,
    seed: int = 0,
    clusters: bool = True,
    designs: bool = True,
) -> list[Interval]:
    """Percentile intervals by resampling groups, designs within them, runs within designs.

    Resampled designs make ties, which pull rank correlations of few designs towards zero.

    Args:
        statistic: from indices of designs, the groups they count as (two copies of a group are
            two groups) and their outcomes (means over runs), ``[k]`` each, some numbers.
        groups: group of each design, ``[designs]``.
        outcomes: ``[designs, runs]``.
        draws: resamples.
        seed: of the resampling.
        clusters: whether groups are resampled.
        designs: whether designs are.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in dict.fromkeys(groups.tolist())]

    def at(chosen: Sequence[NDArray[np.int64]], runs: NDArray[np.int64] | None) -> Array:
        index = np.concatenate(chosen)
        label = np.repeat(np.arange(len(chosen)), [len(m) for m in chosen]).astype(np.float64)
        means = outcomes[index] if runs is None else outcomes[index[:, None], runs]
        return np.asarray(statistic(index, label, means.mean(1)), dtype=np.float64)

    found = []
    for _ in range(draws):
        several = members
        if clusters:
            several = [members[i] for i in rng.integers(len(members), size=len(members))]
        if designs:
            several = [m[rng.integers(len(m), size=len(m))] for m in several]
        count = sum(len(m) for m in several)
        found.append(at(several, rng.integers(outcomes.shape[1], size=(count, outcomes.shape[1]))))
    bounds = _quantiles(np.array(found))
    return [Interval(*map(float, row)) for row in zip(at(members, None), *bounds, strict=True)]


def _quantiles(found: Array) -> tuple[Array, Array]:
    """The bounds per column; NaN where most resamples have no value."""
    known = np.isfinite(found).mean(0) > 0.5
    filled = np.where(known, found, 0.0)
    low, high = np.nanquantile(filled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
