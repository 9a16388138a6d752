r"""The Lagrangian of a multiple-choice knapsack: a lower bound, and prices that nearly solve it.

One option is chosen from each of R lists; an option has a value and ``J`` loads. Minimise the
sum of values subject to ``sum of loads <= limits``. For prices ``p >= 0``::

    g(p) = sum over lists of min over options of (value + p . load)  -  p . limits

is a lower bound of every feasible choice, concave in ``p``; its maximum is the best such bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerewrite.planning.measures.base import FloatArray, IntArray

BISECTIONS = 90
"""Halvings of the price with one limit."""

CUTS = 400
"""Steps of the ellipsoid method with several limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """The lists, joined end to end, loads scaled by powers of two (which keeps them exact).

    Attributes:
        start: index of each list's first option, ``[lists]``.
        values: ``[options]``.
        loads: ``[options, limits]``; the limits are ``room``.
        room: ``[limits]``, in (0.5, 1] after scaling, or 0.
    """

    start: IntArray
    values: FloatArray
    loads: FloatArray
    room: FloatArray

    @property
    def sizes(self) -> IntArray:
        """Options per list."""
        return np.diff(np.append(self.start, len(self.values)))

    def load(self, chosen: IntArray) -> FloatArray:
        """Total loads of a choice of one option per list."""
        return np.asarray(self.loads[chosen].sum(axis=0))

    def fits(self, chosen: IntArray) -> bool:
        """Whether a choice is within the limits."""
        return bool((self.load(chosen) <= self.room).all())

    def value(self, chosen: IntArray) -> float:
        """Total value of a choice."""
        return float(self.values[chosen].sum())


def join_options(
    values: Sequence[FloatArray], loads: Sequence[FloatArray], limits: FloatArray
) -> Options:
    """Join per-list values and loads; scale the loads so that limits are near 1.

    Args:
        values: per list, ``[options]``.
        loads: per list, ``[options, limits]``.
        limits: ``[limits]``, at least 0.
    """
    sizes = [len(value) for value in values]
    scale = 2.0 ** np.ceil(np.log2(np.where(limits > 0.0, limits, 1.0)))
    return Options(
        start=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        values=np.concatenate(list(values)),
        loads=np.concatenate(list(loads)) / scale,
        room=limits / scale,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The best prices found, their bound, and choices met on the way that fit.

    Attributes:
        prices: ``[limits]``.
        bound: lower bound of any feasible choice's value.
        choice: the best feasible choice met, or None.
    """

    prices: FloatArray
    bound: float
    choice: IntArray | None


def best_prices(options: Options) -> Prices:
    """Maximise the bound: by bisection with one limit, by the ellipsoid method with several."""
    search = _Search(options)
    if options.loads.shape[1] == 1:
        _bisect(search)
    else:
        for limit in range(options.loads.shape[1]):
            _bisect(search, limit)
        _ellipsoid(search)
    return Prices(search.prices, search.bound, search.choice)


class _Search:
    """Evaluates the bound and keeps the best of what it sees."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.count = options.loads.shape[1]
        self.prices = np.zeros(self.count)
        self.bound = -np.inf
        self.choice: IntArray | None = None

    def slack(self, prices: FloatArray) -> FloatArray:
        """Evaluate the bound; its super-gradient, ``load - room``."""
        options = self.options
        costs = options.values + options.loads @ prices
        least = np.minimum.reduceat(costs, options.start)
        bound = float(least.sum() - prices @ options.room)
        if bound > self.bound:
            self.bound, self.prices = bound, prices.copy()
        at = np.flatnonzero(costs == np.repeat(least, options.sizes))
        lists = np.searchsorted(options.start, at, side="right") - 1
        chosen = at[np.unique(lists, return_index=True)[1]]
        self.offer(chosen)
        return options.load(chosen) - options.room

    def offer(self, chosen: IntArray) -> None:
        """Keep a choice that fits if it is the best so far."""
        options = self.options
        if not options.fits(chosen):
            return
        if self.choice is None or options.value(chosen) < options.value(self.choice):
            self.choice = chosen


def _bisect(search: _Search, limit: int = 0) -> None:
    """Find the price of one limit at which the load crosses it, the other prices zero."""
    unit = np.zeros(search.count)
    unit[limit] = 1.0
    if search.slack(np.zeros(search.count))[limit] <= 0.0:
        return
    spread = float(np.ptp(search.options.values)) + 1e-12
    high = spread
    while search.slack(high * unit)[limit] > 0.0 and high < 1e18 * spread:
        high *= 4.0
    low = 0.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high) if low > 0.01 * high else max(low, high * 0.1)
        if not low < middle < high:
            break
        if search.slack(middle * unit)[limit] > 0.0:
            low = middle
        else:
            high = middle
        if high - low <= 1e-13 * high:
            break


def _ellipsoid(search: _Search) -> None:
    """Cut a shrinking ellipsoid of prices at its centre, by super-gradient or by sign."""
    count = search.count
    radius = 8.0 * (np.abs(search.prices).max() + float(np.ptp(search.options.values)) + 1e-9)
    centre = search.prices.copy()
    shape = np.eye(count) * radius**2
    for _ in range(CUTS):
        if (centre < 0.0).any():
            normal = np.where(np.arange(count) == int(np.argmin(centre)), -1.0, 0.0)
        else:
            normal = -search.slack(centre)
        length = float(np.sqrt(max(normal @ shape @ normal, 0.0)))
        if length <= 1e-14 * max(abs(search.bound), 1e-12):
            break
        step = shape @ normal / length
        centre = centre - step / (count + 1)
        factor = count**2 / (count**2 - 1.0)
        shape = factor * (shape - 2.0 / (count + 1) * np.outer(step, step))
