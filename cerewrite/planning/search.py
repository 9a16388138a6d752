"""The designs of one region worth having, as a Pareto front over (members, widths).

The search uses that members are independent: nu is ``nu(1, n) / m`` and costs grow with ``m``
in proportion, so a design can only be Pareto-optimal if its member is. First the front of
members is found (by looking at every width where that is affordable, else on a grid or by
descent), then each of its rows is taken with every multiplicity.

Nothing here depends on the budget but a final cut, so a larger budget always chooses from a
larger set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cerewrite.ir import Design
from cerewrite.planning.descent import sweep
from cerewrite.planning.front import Front, pareto, pareto_members
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import GROWTH, Problem
from cerewrite.planning.useful import regret, useful_stretches

BETWEEN = 150_000
"""Designs put between neighbours on the front of members, about."""

EXHAUSTIVE = 120_000
"""Members are enumerated where designs times classes stay below it."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How finely a region is searched; fewer regions can afford more.

    Attributes:
        dense: multiplicities up to it are all looked at.
        ratio: beyond it, neighbours differ by this factor.
        between: designs put between neighbours on the front of members, at most.
        beside: designs looked at around the most efficient members; 0 for none.
        slopes: supporting lines of a sweep.
    """

    dense: int
    ratio: float
    between: int
    beside: int
    slopes: int


FINE = Detail(dense=1024, ratio=1.005, between=12, beside=60_000, slopes=44)
COARSE = Detail(dense=48, ratio=1.03, between=3, beside=0, slopes=20)


def detail_for(regions: int) -> Detail:
    """The detail that a plan over so many regions affords."""
    return FINE if regions <= 4 else COARSE


def build_front(problem: Problem, detail: Detail, cap: FloatArray) -> Front:
    """The Pareto front of a region's designs, its original design included.

    Args:
        problem: the region's search space.
        detail: how finely to search.
        cap: the most it may cost, ``[costs]``; the original design is exempt.

    Returns:
        The front. The original design is a candidate, and of equal designs the one that is kept.
    """
    if problem.held is not None:
        return _held_front(problem, problem.held)
    rows, considered = member_front(problem, detail)
    own_costs, own_score = problem.original()
    cap = np.minimum(cap, GROWTH * np.maximum(own_costs, 1.0))
    members = _multiplicities(problem, rows, detail, cap)
    pairs = list(_allowed_pairs(problem, rows, members, cap))
    row = np.concatenate([pair[0] for pair in pairs])
    column = np.concatenate([pair[1] for pair in pairs])
    costs = np.concatenate([own_costs[None, :], *(pair[2] for pair in pairs)])
    score = np.concatenate([[own_score], *(pair[3] for pair in pairs)])
    keep = np.flatnonzero(np.append(True, score[1:] <= problem.ceiling))
    keep = keep[pareto(np.column_stack([costs, score])[keep])]
    original = np.asarray([problem.region.widths], dtype=np.int64)
    return Front(
        rows=np.concatenate([original, rows]),
        row=np.concatenate([[0], row + 1])[keep],
        multiplicity=np.concatenate([[problem.region.multiplicity], members[column]])[keep],
        costs=costs[keep],
        score=score[keep],
        considered=considered + len(score),
    )


def _held_front(problem: Problem, design: Design) -> Front:
    """The front of a region whose design the user holds: that design."""
    costs, score = problem.figures(design)
    return Front(
        rows=np.asarray([design.widths], dtype=np.int64),
        row=np.zeros(1, dtype=np.int64),
        multiplicity=np.asarray([design.multiplicity], dtype=np.int64),
        costs=costs[None, :],
        score=np.asarray([score]),
        considered=1,
    )


def _allowed_pairs(
    problem: Problem, rows: IntArray, members: IntArray, cap: FloatArray
) -> Iterator[tuple[IntArray, IntArray, FloatArray, FloatArray]]:
    """Rows with multiplicities, in blocks of rows for which a stretch of them is of use.

    Yields:
        Row and index of the multiplicity, ``[designs]``; costs, ``[designs, costs]``; score.
    """
    measured = problem.member(rows)
    for block, several in useful_stretches(problem, rows, measured, members, cap):
        table = problem.table(several, rows[block])
        scores = problem.scores(measured[block], several)
        good = (table <= cap).all(axis=-1) & np.isfinite(scores)
        row, column = np.nonzero(good)
        first = int(np.searchsorted(members, several[0]))
        yield block[row], column + first, table[row, column], scores[row, column]


def member_front(problem: Problem, detail: Detail) -> tuple[IntArray, int]:
    """The members that no other member beats, ``[rows, classes]``, and how many were tried."""
    if problem.proportional:
        rows = problem.proportions()
        return rows[_best_members(problem, rows)], len(rows)
    count = 1.0
    for values in problem.values:
        count *= len(values)
    if count * len(problem.group) <= EXHAUSTIVE:
        rows = problem.expand(_product(problem.values))
        return rows[_best_members(problem, rows)], len(rows)
    if len(problem.values) <= 2:
        groups = _product(tuple(thin(values) for values in problem.values))
        groups = groups[_balanced(problem, groups)]
    else:
        groups = sweep(problem, detail.slopes)
    tried = len(groups)
    groups = groups[_best_members(problem, problem.expand(groups))]
    for more in (_between, _beside) if detail.beside else (_between,):
        added = more(problem, groups, detail)
        tried += len(added)
        groups = np.concatenate([groups, added])
        groups = groups[_best_members(problem, problem.expand(groups))]
    return problem.expand(groups), tried


def thin(values: IntArray, dense: int = 24, ratio: float = 1.07) -> IntArray:
    """The first values, then a geometric selection of the others."""
    if len(values) <= dense:
        return values
    count = int(np.log(len(values) / dense) / np.log(ratio)) + 1
    later = np.round(np.geomspace(dense, len(values), count)).astype(np.int64) - 1
    chosen: IntArray = values[np.unique(np.concatenate([np.arange(dense), later]))]
    return chosen


def _product(values: tuple[IntArray, ...]) -> IntArray:
    grids = np.meshgrid(*values, indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=-1)


def _balanced(problem: Problem, groups: IntArray, most: float = 6.0) -> IntArray:
    """Rows whose widths, relative to the original ones, differ by a limited factor."""
    sizes = np.zeros(len(problem.values))
    sizes[problem.group] = problem.region.widths
    relative = groups / sizes
    balanced = relative.max(axis=1) <= most * relative.min(axis=1)
    return np.flatnonzero(balanced) if balanced.any() else np.arange(len(groups))


def _best_members(problem: Problem, rows: IntArray) -> IntArray:
    costs = problem.table(np.ones(1, dtype=np.int64), rows)[:, 0]
    return pareto_members(costs, problem.member(rows))


def _between(problem: Problem, groups: IntArray, detail: Detail) -> IntArray:
    """Designs between neighbours on the front (in log width) and one step beside each."""
    if len(groups) < 2:
        return groups
    logs = np.log(groups.astype(np.float64))
    moved = len(groups) * (2 * groups.shape[1] + 1)
    between = min(detail.between, max(BETWEEN // moved, 1))
    parts = np.arange(between + 1)[:, None, None] / (between + 1)
    mixed = np.exp(logs[:-1] + parts * np.diff(logs, axis=0)).reshape(-1, groups.shape[1])
    mixed = np.concatenate([mixed, groups[-1:]])
    steps = np.eye(groups.shape[1], dtype=np.int64)
    moves = np.concatenate([0 * steps[:1], steps, -steps])
    return problem.widths_at(_moved(problem, _indices(problem, mixed), moves))


def _beside(problem: Problem, groups: IntArray, detail: Detail) -> IntArray:
    """The most efficient members with one or two classes changed by one step."""
    count = len(problem.values)
    single = np.concatenate([np.eye(count, dtype=np.int64), -np.eye(count, dtype=np.int64)])
    moves = np.unique((single[:, None, :] + single[None, :, :]).reshape(-1, count), axis=0)
    order = np.argsort(regret(problem, problem.expand(groups)), kind="stable")
    chosen = order[: max(detail.beside // len(moves), 1)]
    index = _indices(problem, groups[chosen].astype(np.float64))
    return problem.widths_at(_moved(problem, index, moves))


def _moved(problem: Problem, index: IntArray, moves: IntArray) -> IntArray:
    """Every move from every design, cut off at the bounds, each design once."""
    top = np.asarray([len(values) - 1 for values in problem.values])
    moved = np.clip(index[:, None, :] + moves, 0, top).reshape(-1, index.shape[1])
    if np.prod(top + 1.0) > 2.0**62:
        return np.asarray(np.unique(moved, axis=0))
    strides = np.append(np.cumprod((top + 1)[:0:-1])[::-1], 1)
    _, first = np.unique(moved @ strides, return_index=True)
    return np.asarray(moved[first])


def _indices(problem: Problem, widths: FloatArray) -> IntArray:
    """Indices of the allowed widths nearest to the wanted ones, ``[designs, groups]``."""
    columns = [_nearest(values, widths[:, g]) for g, values in enumerate(problem.values)]
    return np.stack(columns, axis=-1)


def _nearest(values: IntArray, wanted: FloatArray) -> IntArray:
    step = values[1] - values[0] if len(values) > 1 else 1
    index = np.round((wanted - values[0]) / step).astype(np.int64)
    return np.asarray(np.clip(index, 0, len(values) - 1))


def _multiplicities(problem: Problem, rows: IntArray, detail: Detail, cap: FloatArray) -> IntArray:
    """Multiplicities to look at: all up to a point, then geometric, up to what ``cap`` allows."""
    table = problem.table(np.asarray([1, 2], dtype=np.int64), rows)
    slope = np.maximum((table[:, 1] - table[:, 0]).min(axis=0), 1.0)
    room = np.minimum((cap - table[:, 0].min(axis=0)) / slope, float(problem.most))
    most = int(np.clip(room.min() + 1, 1, problem.most))
    dense = np.arange(1, min(detail.dense, most) + 1, dtype=np.int64)
    if most <= detail.dense:
        return dense
    count = int(np.log(most / detail.dense) / np.log(detail.ratio)) + 1
    later = np.round(detail.dense * detail.ratio ** np.arange(1, count + 1)).astype(np.int64)
    return np.asarray(np.unique(np.concatenate([dense, later[later <= most]])))
