"""What budgets leave room for: the feasible range of each cost, and refusals that give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Analysis, Budget
from cerewrite.planning.budgets import BUDGETS, write_amount
from cerewrite.planning.measures.base import FloatArray
from cerewrite.planning.problem import GROWTH, Problem


@dataclass(frozen=True, slots=True, eq=False)
class BudgetBounds:
    """The budgets as the search sees them, costs in the order of the budgets.

    Attributes:
        budgets: the budgets.
        fixed: cost of what no plan changes, ``[costs]``.
        own: each region's original cost, ``[regions, costs]``.
        least: each region's least cost, ``[regions, costs]``.
        most: each region's largest cost that is searched, ``[regions, costs]``.
        together: least cost of the whole model where regions share layers, ``[costs]``; None
            where the regions' costs add up.
    """

    budgets: tuple[Budget, ...]
    fixed: FloatArray
    own: FloatArray
    least: FloatArray
    most: FloatArray
    together: FloatArray | None = None

    @property
    def limits(self) -> FloatArray:
        """What the regions may cost together, ``[costs]``."""
        return np.floor([budget.aim for budget in self.budgets]) - self.fixed

    @property
    def original_fits(self) -> bool:
        """Whether leaving the model as it is meets every limit."""
        limits = np.floor([budget.limit for budget in self.budgets]) - self.fixed
        return bool((self.own.sum(axis=0) <= limits).all())

    @property
    def feasible(self) -> tuple[tuple[str, float, float], ...]:
        """Per budget: cost, least and largest figure of the whole model."""
        low, high = self.fixed + self.least.sum(axis=0), self.fixed + self.most.sum(axis=0)
        low = low if self.together is None else self.together
        return tuple(
            (budget.cost, max(0.0, float(low[j])), float(high[j]))
            for j, budget in enumerate(self.budgets)
        )

    def cap(self, region: int) -> FloatArray:
        """The most that one region can cost when all others cost their least, ``[costs]``."""
        others = self.least.sum(axis=0) - self.least[region]
        return np.asarray(self.limits - others)


def find_room(
    analysis: Analysis, budgets: tuple[Budget, ...], problems: Sequence[Problem]
) -> BudgetBounds:
    """The feasible range of every budgeted cost.

    Least is every region at one member of the least widths allowed, or as it is; largest is
    `GROWTH` times what the regions cost now, or what the constraints allow if that is less.
    """
    least, most = ranges(problems)
    baseline = np.asarray([BUDGETS[budget.cost].baseline(analysis) for budget in budgets])
    own = np.stack([problem.original()[0] for problem in problems])
    return BudgetBounds(budgets, baseline - own.sum(axis=0), own, least, most)


def ranges(problems: Sequence[Problem]) -> tuple[FloatArray, FloatArray]:
    """Least and largest cost of each region's designs, ``[regions, costs]`` both."""
    one = np.ones(1, dtype=np.int64)
    least, most = [], []
    for problem in problems:
        own = problem.original()[0]
        if problem.held is not None:
            least.append(problem.figures(problem.held)[0])
            most.append(least[-1])
            continue
        ends = np.asarray([[values[0], values[-1]] for values in problem.values]).T
        narrow, wide = problem.table(one, problem.expand(ends))[:, 0]
        least.append(np.minimum(own, narrow))
        most.append(np.maximum(own, np.minimum(GROWTH * own, wide * problem.most)))
    return np.stack(least), np.stack(most)


def check_limits(room: BudgetBounds) -> None:
    """Refuse budgets that no design meets.

    Raises:
        InfeasibleBudgetError: if a limit is below the least cost; with the feasible range and
            the closest feasible request.
    """
    for budget, (cost, least, largest) in zip(room.budgets, room.feasible, strict=True):
        if budget.aim < least:
            raise infeasible(budget, cost, least, largest)


def infeasible(
    budget: Budget, cost: str, least: float, largest: float, given: str = ""
) -> InfeasibleBudgetError:
    """The refusal of one budget."""
    unit = BUDGETS[cost].unit
    return InfeasibleBudgetError(
        f"budget '{budget.text}' allows {budget.limit:,.0f} {unit}, but the designs of this model "
        f"reach {least:,.0f} to {largest:,.0f}{given}",
        advice=f"the closest feasible request is {cost}={write_amount(least)}",
    )
