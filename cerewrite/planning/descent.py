"""Members of regions with many classes, by descent along the front's supporting lines.

For every slope ``t`` of a geometric sequence the member that minimises ``score + t * cost`` is
sought, starting from the last one's; the score is that of the member alone. Costs and nu are sums
of monomials in the widths, hence convex in their logarithms, and so is ``log(1 + nu)``; moves of
one class at a time, tried at every scale from one step to half the width, then end at the minimum
or within a step of it. Scores that are logarithms spread the slopes evenly: nu itself grows
exponentially towards narrow members, and most slopes would go where no budget ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import Problem

ROUNDS = 40
"""Most moves per slope; a handful is the rule."""


def sweep(problem: Problem, slopes: int) -> IntArray:
    """Members near the front, from the narrowest to the widest, ``[rows, groups]``.

    With several costs, each is swept alone and all of them in equal parts.
    """
    members: list[IntArray] = []
    top = np.asarray([len(values) - 1 for values in problem.values], dtype=np.int64)
    corners = np.stack([np.zeros_like(top), top])
    for weights in _weights(problem):
        score, cost = _evaluate(problem, corners, weights)
        first = 10.0 * max(score[0], 1e-30) / max(cost[0], 1e-30)
        last = 0.1 * max(score[1], 1e-30) / max(cost[1], 1e-30)
        first = min(first, 1e12 * last)
        index = corners[0]
        for slope in np.geomspace(max(first, last), min(first, last), slopes):
            for index in _descend(problem, index, weights, float(slope), top):  # noqa: B020
                members.append(index)
    rows = np.unique(np.concatenate([corners, np.stack(members)]), axis=0)
    return problem.widths_at(rows)


def _weights(problem: Problem) -> list[FloatArray]:
    own = np.maximum(problem.original()[0], 1.0)
    single = [np.where(np.arange(len(own)) == j, 1.0 / own, 0.0) for j in range(len(own))]
    return single if len(own) == 1 else [*single, 1.0 / own / len(own)]


def _evaluate(
    problem: Problem, index: IntArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Score and weighted cost of one member, ``[designs]`` both."""
    widths = problem.expand(problem.widths_at(index))
    costs = problem.table(np.ones(1, dtype=np.int64), widths)[:, 0]
    return problem.measure.score(problem.member(widths), np.ones(1)), costs @ weights


def _descend(
    problem: Problem, index: IntArray, weights: FloatArray, slope: float, top: IntArray
) -> Iterator[IntArray]:
    """The designs that the descent passes through; the last one is its end."""

    def value(rows: IntArray) -> FloatArray:
        score, cost = _evaluate(problem, rows, weights)
        return np.asarray(score + slope * cost)

    best = float(value(index[None, :])[0])
    yield index
    for _ in range(ROUNDS):
        moves = _moves(index, top)
        trial = value(index + moves)
        jumps = _joint(index, moves, trial - best, top)
        rows = np.concatenate([index + moves, jumps])
        values = np.concatenate([trial, value(jumps)])
        chosen = int(np.argmin(values))
        if values[chosen] >= best * (1.0 - 1e-12):
            return
        index, best = rows[chosen], float(values[chosen])
        yield index


def _moves(index: IntArray, top: IntArray) -> IntArray:
    """Changes of one group each: plus and minus 1, 2, 4, ... steps, within the bounds."""
    count = len(index)
    scales = 1 << np.arange(int(top.max()).bit_length())
    signed = np.concatenate([scales, -scales])
    moves = (np.eye(count, dtype=np.int64)[:, None, :] * signed[None, :, None]).reshape(-1, count)
    inside = ((index + moves >= 0) & (index + moves <= top)).all(axis=1)
    return np.asarray(moves[inside])


def _joint(index: IntArray, moves: IntArray, change: FloatArray, top: IntArray) -> IntArray:
    """All groups moved at once, each by its own best move, at several fractions of it."""
    total = np.zeros(len(index), dtype=np.float64)
    for group in range(len(index)):
        mine = np.flatnonzero(moves[:, group])
        if len(mine) and change[mine].min() < 0.0:
            total[group] = moves[mine[int(np.argmin(change[mine]))], group]
    fractions = np.asarray([1.0, 0.7, 0.5, 0.35, 0.25, 0.1])[:, None]
    jumps = np.round(index + fractions * total).astype(np.int64)
    return np.asarray(np.clip(jumps, 0, top))
