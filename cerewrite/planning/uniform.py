"""Uniform plans: one multiplicity and one scale for all regions, as in ResNeXt and the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Design
from cerewrite.planning.choose import SLACK, Choice, Objective
from cerewrite.planning.limits import BudgetBounds
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import WIDEST, Problem

DENSE = 4096
"""Multiplicities up to it are all looked at, beyond it a geometric selection."""


def choose_uniform(problems: Sequence[Problem], room: BudgetBounds, objective: Objective) -> Choice:
    """The best ``(m, n)`` with ``n`` the member width of the first region's first class.

    Every other width is ``n * width / first width``, rounded to an allowed one. Leaving the
    whole model as it is is a candidate too.

    Raises:
        InfeasibleBudgetError: if no uniform design meets the budgets.
    """
    widths = _widths(problems)
    members = _multiplicities(problems, widths, room)
    costs = np.zeros((len(widths[0]), len(members), len(room.budgets)))
    score = np.zeros(costs.shape[:2])
    for problem, rows in zip(problems, widths, strict=True):
        costs += problem.table(members, rows)
        score += problem.scores(problem.member(rows), members)
    own_costs = room.own.sum(axis=0)
    own_score = sum(problem.original()[1] for problem in problems)
    fits = (costs <= room.limits).all(axis=-1)
    own_fits = bool((own_costs <= room.limits).all())
    if objective == "dual":
        fits &= score <= own_score * (1.0 + SLACK)
    target = score if objective == "primal" else costs[..., 0]
    own = own_score if objective == "primal" else own_costs[0]
    masked = np.where(fits, target, np.inf)
    best = np.unravel_index(int(np.argmin(masked)), masked.shape)
    considered = score.size + 1
    if own_fits and own <= masked[best]:
        designs = tuple(problem.region.design for problem in problems)
        return Choice(designs, 0.0, considered)
    if not np.isfinite(masked[best]):
        raise _refusal(costs, score, own_score, room, objective)
    row, column = int(best[0]), int(best[1])
    designs = tuple(
        Design(int(members[column]), tuple(int(width) for width in rows[row])) for rows in widths
    )
    return Choice(designs, 0.0, considered)


def _widths(problems: Sequence[Problem]) -> list[IntArray]:
    """Per region, the member widths at every width of the first region's first class."""
    first = problems[0].region.widths[0]
    sweep = np.unique(problems[0].values[0][problems[0].values[0] <= WIDEST * first])
    return [problem.scaled(sweep, first)[0] for problem in problems]


def _multiplicities(
    problems: Sequence[Problem], widths: Sequence[IntArray], room: BudgetBounds
) -> IntArray:
    pair = np.asarray([1, 2], dtype=np.int64)
    tables = [p.table(pair, rows) for p, rows in zip(problems, widths, strict=True)]
    total = np.sum(tables, axis=0)
    slope = np.maximum((total[:, 1] - total[:, 0]).min(axis=0), 1.0)
    most = max(problem.most for problem in problems)
    most = int(np.clip((room.limits / slope).min() + 1.0, 1.0, most))
    dense = np.arange(1, min(most, DENSE) + 1, dtype=np.int64)
    if most <= DENSE:
        return dense
    later = np.round(np.geomspace(DENSE, most, 400)).astype(np.int64)
    return np.unique(np.concatenate([dense, later]))


def _refusal(
    costs: FloatArray, score: FloatArray, own_score: float, room: BudgetBounds, objective: Objective
) -> InfeasibleBudgetError:
    usable = score <= own_score * (1.0 + SLACK) if objective == "dual" else score >= 0.0
    reached = costs[usable]
    low, high = reached.min(axis=0) + room.fixed, reached.max(axis=0) + room.fixed
    ranges = ", ".join(
        f"{budget.cost} {low[j]:,.0f} to {high[j]:,.0f}" for j, budget in enumerate(room.budgets)
    )
    asked = ", ".join(budget.text for budget in room.budgets)
    return InfeasibleBudgetError(
        f"no uniform design meets {asked}; uniform designs reach {ranges}",
        advice="drop --uniform, or ask for "
        + ", ".join(f"{b.cost}={low[j]:.0f}" for j, b in enumerate(room.budgets)),
    )
