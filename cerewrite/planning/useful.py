"""Multiplicities worth having: which stretches of them no other design beats from end to end.

A stretch of a row, from ``m`` to ``m'`` members, costs at least what ``m`` cost and scores at
least what ``m'`` score. A design that is cheaper than the first and better than the second beats
all of it. Looking at a few marks of every row is enough to drop most stretches unseen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cerewrite.planning.front import cost_mixes
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import Problem

FEW = 200_000
"""Pairs of a row and a multiplicity that are all looked at."""

APART = 2.0
"""Ratio of the multiplicities that `regret` looks at."""

STRETCH = 1.2
"""Multiplicities at the ends of a stretch differ by at most this factor, or are neighbours."""


def useful_stretches(
    problem: Problem, rows: IntArray, measured: FloatArray, members: IntArray, cap: FloatArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Stretches of multiplicities with the rows for which they can be of use.

    Args:
        problem: the region's search space.
        rows: member widths per class, ``[rows, classes]``.
        measured: what `Problem.member` says of them.
        members: multiplicities, ascending, ``[m]``.
        cap: the most that a design may cost, ``[costs]``.

    Yields:
        Indices of rows and the multiplicities to look at with them. With several costs a stretch
        is kept if it is of use in some mix of them.
    """
    if len(rows) * len(members) <= FEW:
        yield np.arange(len(rows)), members
        return
    starts = _marks(members)
    marks, ends = members[starts], members[np.append(starts[1:], len(members)) - 1]
    table = problem.table(marks, rows)
    counts = np.unique(np.concatenate([marks, ends]))
    scores = problem.scores(measured, counts)
    score, best = (scores[:, np.searchsorted(counts, ask)] for ask in (marks, ends))
    fits = (table <= cap).all(axis=-1) & np.isfinite(score)
    if not fits.any():
        return
    useful = np.zeros_like(fits)
    for bound in _bounds(table, score, fits):
        useful |= best <= bound
    useful &= fits
    for column, (first, mark) in enumerate(zip(starts, marks, strict=True)):
        chosen = np.flatnonzero(useful[:, column])
        if len(chosen):
            assert members[first] == mark
            yield chosen, members[first : np.append(starts, len(members))[column + 1]]


def regret(problem: Problem, rows: IntArray) -> FloatArray:
    """How far each row stays behind the best of the others, ``[rows]``: 1 on the front itself.

    It is the least ratio of its score to the best score for no greater cost, over members and
    over mixes of the costs.
    """
    most = float(min(problem.most, 1 << 16))
    powers = np.round(APART ** np.arange(np.log(most) / np.log(APART) + 1))
    marks = np.unique(powers.astype(np.int64))
    table = problem.table(marks, rows)
    score = problem.scores(problem.member(rows), marks)
    fits = np.isfinite(score)
    least = np.full(len(rows), np.inf)
    for bound in _bounds(table, score, fits):
        least = np.minimum(least, (score / np.maximum(bound, 1e-300)).min(axis=1))
    return least


def _bounds(table: FloatArray, score: FloatArray, fits: NDArray[np.bool_]) -> Iterator[FloatArray]:
    """Per mix of costs, the best score that some fitting design has for no greater cost.

    It is 0 for designs that do not fit.
    """
    fitting, scored = table[fits], score[fits]
    for mix in cost_mixes(fitting):
        price = fitting @ mix
        order = np.argsort(price)
        known, least = price[order], np.minimum.accumulate(scored[order])
        best = np.empty_like(scored)
        best[order] = least[np.searchsorted(known, known, side="right") - 1]
        bound = np.zeros_like(score)
        bound[fits] = best
        yield bound


def _marks(members: IntArray) -> IntArray:
    """Indices of the multiplicities that begin a stretch."""
    starts = [0]
    for index in range(1, len(members)):
        if members[index] > STRETCH * members[starts[-1]]:
            starts.append(index)
    return np.asarray(starts, dtype=np.int64)
