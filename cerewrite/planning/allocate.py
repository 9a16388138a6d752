"""One design per region under common limits: the Lagrangian, then an exact clean-up.

With the prices fixed, every option has a reduced cost ``r >= 0``: what it loses against its
list's best. The value of any feasible choice is at least ``bound + sum r``, so options with
``r`` above ``incumbent - bound`` can be struck out. What is left, usually a few per region, is
merged list by list, keeping the partial choices that no other one beats. If there are never
more of these than `STATES`, the result is the optimum; otherwise it is the best found, and its
distance to the bound says how far off it can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerewrite.planning.front import is_exact, pareto
from cerewrite.planning.lagrange import Options, Prices, best_prices, join_options
from cerewrite.planning.measures.base import FloatArray, IntArray

STATES = 3_000
"""Most partial choices kept while merging."""

PAIRS = 250_000
"""Most extensions of partial choices formed at once."""

CLOSE = 1e-4
"""A cut merge is not repeated once the relative gap is below it."""

SWAPS = 200
"""Most single exchanges that improve a feasible choice before the merge."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The outcome.

    Attributes:
        chosen: option of each list.
        value: total value.
        bound: Lagrangian lower bound of the value.
        exact: whether nothing was dropped on the way: the value is the least possible.
    """

    chosen: tuple[int, ...]
    value: float
    bound: float
    exact: bool

    @property
    def gap(self) -> float:
        """``(value - bound) / |bound|``, at least 0."""
        lost = max(self.value - self.bound, 0.0)
        return lost / abs(self.bound) if self.bound else lost


def allocate(
    values: Sequence[FloatArray],
    loads: Sequence[FloatArray],
    limits: FloatArray,
    starts: Sequence[Sequence[int]] = (),
) -> Allocation | None:
    """Choose one option per list: least total value with total loads within the limits.

    Args:
        values: per list, ``[options]``, finite.
        loads: per list, ``[options, limits]``, at least 0.
        limits: ``[limits]``.
        starts: choices known beforehand; the result is never worse than those that fit.

    Returns:
        The allocation, or None if nothing was found that fits.

    Example:
        >>> worth = [np.array([4.0, 1.0]), np.array([2.0, 0.0])]
        >>> weight = [np.array([[1.0], [4.0]]), np.array([[1.0], [3.0]])]
        >>> allocate(worth, weight, np.array([5.0])).chosen
        (1, 0)
    """
    if (limits < 0.0).any():
        return None
    options = join_options(values, loads, limits)
    prices = best_prices(options)
    offers = [options.start + np.asarray(start, dtype=np.int64) for start in starts]
    offers = [offer for offer in offers if options.fits(offer)]
    if prices.choice is not None:
        offers.append(prices.choice)
    offers = [_exchange(options, offer) for offer in offers]
    best = min(offers, key=options.value, default=None)
    best, exact = _merge_until_stable(options, prices, best)
    if best is None:
        return None
    bound = min(prices.bound, options.value(best))
    chosen = tuple(int(index) for index in best - options.start)
    return Allocation(chosen, options.value(best), bound, exact)


def _exchange(options: Options, chosen: IntArray) -> IntArray:
    """Improve a feasible choice by exchanging one list's option at a time, best first."""
    lists = np.repeat(np.arange(len(options.start)), options.sizes)
    for _ in range(SWAPS):
        slack = options.room - options.load(chosen)
        extra = options.loads - options.loads[chosen][lists]
        gain = options.values[chosen][lists] - options.values
        gain[~(extra <= slack).all(axis=1)] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] <= 1e-12 * abs(options.value(chosen)):
            break
        chosen = chosen.copy()
        chosen[lists[best]] = best
    return chosen


def _merge_until_stable(
    options: Options, prices: Prices, best: IntArray | None
) -> tuple[IntArray | None, bool]:
    """Merge again while a cut merge has improved the incumbent (which strikes out more)."""
    for _ in range(3):
        spare = np.inf if best is None else options.value(best) - prices.bound
        merged, exact = _merge(options, prices, spare)
        improved = merged is not None and (
            best is None or options.value(merged) < options.value(best) - 1e-15
        )
        if improved:
            best = merged
        lost = np.inf if best is None else options.value(best) - prices.bound
        if exact or not improved or lost <= CLOSE * abs(prices.bound):
            break
    return best, exact


def _merge(options: Options, prices: Prices, spare: float) -> tuple[IntArray | None, bool]:
    """The best choice whose reduced costs stay below ``spare``."""
    costs = options.values + options.loads @ prices.prices
    reduced = costs - np.repeat(np.minimum.reduceat(costs, options.start), options.sizes)
    tolerance = 1e-12 * max(abs(prices.bound), 1e-300)
    alive = [
        first + np.flatnonzero(reduced[first : first + size] <= spare + tolerance)
        for first, size in zip(options.start, options.sizes, strict=True)
    ]
    least = np.stack([options.loads[index].min(axis=0) for index in alive])
    ahead = np.cumsum(least[::-1], axis=0)[::-1] - least
    states = _States.empty(options.loads.shape[1])
    for index, later in zip(alive, ahead, strict=True):
        states = states.extend(options, reduced, index, spare + tolerance, later)
        if not len(states.value):
            return None, states.exact
    return states.choice(int(np.argmin(states.value))), states.exact


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """Partial choices over the lists merged so far.

    Attributes:
        value: ``[states]``.
        reduced: summed reduced costs, ``[states]``.
        loads: ``[states, limits]``.
        history: per merged list, each state's parent and option.
        exact: whether none was dropped for want of room.
    """

    value: FloatArray
    reduced: FloatArray
    loads: FloatArray
    history: tuple[tuple[IntArray, IntArray], ...]
    exact: bool

    @classmethod
    def empty(cls, limits: int) -> _States:
        """The one choice over no lists."""
        return cls(np.zeros(1), np.zeros(1), np.zeros((1, limits)), (), True)

    def extend(
        self,
        options: Options,
        reduced: FloatArray,
        index: IntArray,
        spare: float,
        later: FloatArray,
    ) -> _States:
        """Add one list: every state with every option, less those that cannot win or fit."""
        exact, states = self.exact, np.argsort(self.reduced, kind="stable")
        if len(states) * len(index) > PAIRS:
            index = index[np.argsort(reduced[index], kind="stable")[: max(PAIRS // 1000, 1)]]
            states, exact = states[: PAIRS // len(index)], False
        parent = np.repeat(states, len(index))
        option = np.tile(index, len(states))
        lost = self.reduced[parent] + reduced[option]
        loads = self.loads[parent] + options.loads[option]
        good = np.flatnonzero((lost <= spare) & (loads + later <= options.room).all(axis=1))
        parent, option, lost, loads = parent[good], option[good], lost[good], loads[good]
        value = self.value[parent] + options.values[option]
        keep, whole = self._keep(value, lost, loads)
        exact = exact and whole
        if len(keep) > STATES:
            keep, exact = keep[np.argsort(lost[keep], kind="stable")[:STATES]], False
        history = (*self.history, (parent[keep], option[keep]))
        return _States(value[keep], lost[keep], loads[keep], history, exact)

    @staticmethod
    def _keep(value: FloatArray, lost: FloatArray, loads: FloatArray) -> tuple[IntArray, bool]:
        """States that no other one beats, and whether these are all of them.

        With several limits and many states all are kept: the likeliest will be chosen.
        """
        if loads.shape[1] == 1 or len(value) <= 4 * STATES:
            columns = np.column_stack([value, loads])
            return pareto(columns), is_exact(columns)
        return np.argsort(lost, kind="stable"), True

    def choice(self, state: int) -> IntArray:
        """The options of one state, list by list."""
        options = []
        for parent, option in reversed(self.history):
            options.append(int(option[state]))
            state = int(parent[state])
        return np.asarray(options[::-1], dtype=np.int64)
