"""Pareto fronts of designs: costs against score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cerewrite.ir import Design
from cerewrite.planning.measures.base import FloatArray, IntArray

EXACT = 3_000
"""Most rows of three columns and more whose front is found by comparing them all."""

MIXES = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Relative weights of a pair of costs beyond that."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a further part in the geometric mixes of a member's parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """The designs of one region that no other design beats in every cost and in the score.

    Attributes:
        rows: member widths per class, ``[rows, classes]``.
        row: row of each design, ``[designs]``.
        multiplicity: members of each design, ``[designs]``.
        costs: ``[designs, costs]``.
        score: additive measure, ``[designs]``.
        considered: designs looked at to build it.
    """

    rows: IntArray
    row: IntArray
    multiplicity: IntArray
    costs: FloatArray
    score: FloatArray
    considered: int

    def __len__(self) -> int:
        """Number of designs."""
        return len(self.row)

    def design(self, index: int) -> Design:
        """One of the designs."""
        widths = self.rows[self.row[index]]
        return Design(int(self.multiplicity[index]), tuple(int(width) for width in widths))


def is_exact(columns: FloatArray) -> bool:
    """Whether `pareto` keeps every row of the front, as it does with few columns or few rows."""
    return columns.shape[1] == 2 or len(columns) <= EXACT


def pareto(columns: FloatArray) -> IntArray:
    """Indices of the rows that no other row beats or equals in every column.

    Of equal rows the first is kept. With three columns and more and over `EXACT` rows, only
    those are kept that are best, for the last column, in some mix of the others: the ones
    that prices can choose.

    Args:
        columns: ``[rows, columns]``, all to be made small.

    Returns:
        Indices in ascending order of the first column.

    Example:
        >>> pareto(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0], [1.0, 3.0]])).tolist()
        [0, 1]
    """
    if columns.shape[1] == 2:
        return _pareto_two(columns)
    if not is_exact(columns):
        columns, last = columns[:, :-1], columns[:, -1]
        mixes = [np.column_stack([columns @ mix, last]) for mix in cost_mixes(columns)]
        return np.unique(np.concatenate([_pareto_two(mixed) for mixed in mixes]))
    return _pareto_many(columns)


def pareto_members(costs: FloatArray, member: FloatArray) -> IntArray:
    """Indices of the members that no other one beats or equals in every cost and every part.

    Beyond `EXACT` rows of several parts, those are kept that are best in some mix of the costs
    and some geometric mix of the first part with another.

    Args:
        costs: ``[rows, costs]``.
        member: parts of the measure, ``[rows, parts]``.
    """
    if member.shape[1] == 1 or len(costs) <= EXACT:
        return pareto(np.column_stack([costs, member]))
    logs = np.log(np.maximum(member, 1e-300))
    blends = [
        (1.0 - share) * logs[:, 0] + share * logs[:, part]
        for part in range(1, logs.shape[1])
        for share in SHARES
    ]
    kept = []
    for mix in cost_mixes(costs):
        price = costs @ mix
        order = np.argsort(price)
        kept += [_pareto_ordered(order, price, blend) for blend in blends]
    return np.unique(np.concatenate(kept))


def _pareto_two(columns: FloatArray) -> IntArray:
    first, second = columns.T
    return _pareto_ordered(np.argsort(first), first, second)


def _pareto_ordered(order: IntArray, first: FloatArray, second: FloatArray) -> IntArray:
    """A quick cut that may keep too much (ties come in any order), then an exact one.

    Args:
        order: indices that sort the first column, ties in any order.
        first: ``[rows]``.
        second: ``[rows]``.
    """
    ordered = second[order]
    best = np.minimum.accumulate(ordered)
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = ordered[1:] <= best[:-1]
    order = np.sort(order[keep])
    order = order[np.lexsort((second[order], first[order]))]
    best = np.minimum.accumulate(second[order])
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = second[order[1:]] < best[:-1]
    return np.asarray(order[keep])


def cost_mixes(costs: FloatArray) -> list[FloatArray]:
    """Weights of the costs: each alone, and mixes of two, relative to their medians.

    Args:
        costs: ``[rows, costs]``, at least one row.
    """
    scale = 1.0 / np.maximum(np.median(costs, axis=0), 1e-300)
    count = costs.shape[1]
    mixes = [np.eye(count)[j] * scale for j in range(count)]
    for first in range(count):
        for other in range(first + 1, count):
            for tilt in MIXES:
                mix = np.zeros(count)
                mix[first], mix[other] = scale[first], tilt * scale[other]
                mixes.append(mix)
    return mixes


def _pareto_many(columns: FloatArray) -> IntArray:
    """Take the first row left in lexical order, which none beats; drop what it beats; repeat."""
    order = np.lexsort(tuple(columns.T[::-1]))
    ordered = columns[order]
    alive = np.arange(len(order))
    front = []
    while len(alive):
        first = alive[0]
        front.append(first)
        rest = ordered[alive[1:], 1:]
        alive = alive[1:][(rest < ordered[first, 1:]).any(axis=1)]
    return np.asarray(order[np.asarray(front, dtype=np.int64)])
