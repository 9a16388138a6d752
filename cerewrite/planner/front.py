"""Pareto fronts of designs: costs against score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cerewrite.measures.base import FloatArray, IntArray


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

    def design(self, index: int) -> tuple[int, tuple[int, ...]]:
        """Multiplicity and member widths of one design."""
        widths = self.rows[self.row[index]]
        return int(self.multiplicity[index]), tuple(int(width) for width in widths)


def pareto(columns: FloatArray) -> IntArray:
    """Indices of the rows that no other row beats or equals in every column.

    Of equal rows the first is kept.

    Args:
        columns: ``[rows, columns]``, all to be made small.

    Returns:
        Indices in ascending order of the first column.

    Example:
        >>> pareto(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0], [1.0, 3.0]])).tolist()
        [0, 1]
    """
    order = np.lexsort(tuple(columns.T[::-1]))
    if columns.shape[1] == 1:
        return np.asarray(order[:1])
    ordered = columns[order]
    if columns.shape[1] == 2:
        best = np.minimum.accumulate(ordered[:, 1])
        keep = np.ones(len(order), dtype=np.bool_)
        keep[1:] = ordered[1:, 1] < best[:-1]
        return np.asarray(order[keep])
    return _pareto_many(ordered, order)


def _pareto_many(ordered: FloatArray, order: IntArray) -> IntArray:
    """Three columns and more: take the first row left, drop what it beats, repeat.

    The first row left in lexical order is never beaten by a later one.
    """
    alive = np.arange(len(order))
    front = []
    while len(alive):
        first = alive[0]
        front.append(first)
        rest = ordered[alive[1:], 1:]
        alive = alive[1:][(rest < ordered[first, 1:]).any(axis=1)]
    return np.asarray(order[np.asarray(front, dtype=np.int64)])
