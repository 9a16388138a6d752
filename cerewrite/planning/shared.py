"""Designs of regions that share layers: stages of a network, where one's exit is another's entry.

A shared layer costs in proportion to the product of the widths at its two ends, so the costs of
the two regions do not add up. They are linearised: every region is searched with the far ends
of its shared layers at the widths that the last round chose, and the constant part is set so
that the sum is exact there. At a fixed point of these rounds the linearised costs are the true
ones. Every round's choice is held against the budgets with its exact cost; the best that fits
is the plan. There is no bound on what a better plan might reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Design
from cerewrite.planning.budgets import BUDGETS, ends_of, joint_costs, seen_from
from cerewrite.planning.choose import SLACK, Choice, Objective
from cerewrite.planning.limits import BudgetBounds, ranges
from cerewrite.planning.measures.base import FloatArray
from cerewrite.planning.problem import Problem

ROUNDS = 12
"""Most rounds."""

SETTLED = 0.003
"""Rounds end when two in a row fit and differ by a smaller part than this."""

Choose = Callable[[Sequence[Problem], BudgetBounds, Objective], Choice]


def choose_shared(
    problems: Sequence[Problem], room: BudgetBounds, objective: Objective, choose: Choose
) -> Choice:
    """The best designs found in a few rounds of linearised searches.

    Args:
        problems: regions of which some share layers.
        room: the budgets, each region with its shared layers' far ends as they were.
        objective: ``primal`` or ``dual``.
        choose: the search for regions that share nothing.

    Returns:
        The choice; its gap is infinite, because no bound is known.

    Raises:
        InfeasibleBudgetError: if no round ends within the budgets.
    """
    baseline = room.fixed + room.own.sum(axis=0)
    limits = np.floor([budget.aim for budget in room.budgets])
    own: tuple[Design, ...] = tuple(problem.region.design for problem in problems)
    most = _score(problems, own) * (1.0 + SLACK)
    best: tuple[Design, ...] | None = None
    least = math.inf
    if (baseline <= limits).all():
        best, least = own, most if objective == "primal" else float(baseline[0])
    designs, excess, considered, seen = own, np.zeros(len(limits)), 0, {own}
    before = math.inf
    for _ in range(ROUNDS):
        views = _views(problems, designs)
        here = _total(problems, designs, room, baseline)
        fixed = here - _sum(views, designs) + excess
        low, high = ranges(views)
        own_costs = np.stack([view.original()[0] for view in views])
        try:
            choice = choose(
                views, BudgetBounds(room.budgets, fixed, own_costs, low, high), objective
            )
        except InfeasibleBudgetError:
            if best is None:
                raise
            break
        designs, considered = choice.designs, considered + choice.considered
        total = _total(problems, designs, room, baseline)
        score = _score(problems, designs)
        value = score if objective == "primal" else float(total[0])
        fits = (total <= limits).all() and (objective == "primal" or score <= most)
        settled = designs in seen or math.isclose(value, before, rel_tol=SETTLED)
        if fits and value < least:
            best, least = designs, value
        if fits and settled:
            break
        seen.add(designs)
        before = value if fits else math.inf
        excess = np.maximum(excess + total - limits, 0.0)
    if best is None:
        raise InfeasibleBudgetError(
            "no design of the stages was found within "
            + ", ".join(b.text for b in room.budgets)
            + "; one by one, designs reach "
            + "; ".join(f"{cost} {low:,.0f} to {high:,.0f}" for cost, low, high in room.feasible),
            advice="raise the budget, or use --scope network",
        )
    return Choice(best, math.inf, considered)


def least_together(problems: Sequence[Problem], room: BudgetBounds) -> FloatArray:
    """The whole model's cost with every region at one member of its least widths, ``[costs]``.

    It is the baseline's where that is less (constraints may forbid what the original has).
    """
    narrow = [
        Design(1, tuple(int(problem.values[group][0]) for group in problem.group))
        for problem in problems
    ]
    baseline = room.fixed + room.own.sum(axis=0)
    return np.asarray(np.minimum(baseline, _total(problems, narrow, room, baseline)))


def _views(problems: Sequence[Problem], designs: Sequence[Design]) -> list[Problem]:
    """The problems with the far ends of shared layers where the designs have them."""
    ends: dict[tuple[str, str], int] = {}
    for problem, design in zip(problems, designs, strict=True):
        ends |= ends_of(problem.region, design)
    views = []
    for problem in problems:
        region = seen_from(problem.region, ends)
        costs = tuple(BUDGETS[name].region(region) for name in problem.priced)
        views.append(replace(problem, region=region, costs=costs))
    return views


def _sum(problems: Sequence[Problem], designs: Sequence[Design]) -> FloatArray:
    """What designs cost if the regions' costs are added up, ``[costs]``."""
    rows = [problem.figures(design)[0] for problem, design in zip(problems, designs, strict=True)]
    return np.asarray(np.sum(rows, axis=0))


def _total(
    problems: Sequence[Problem], designs: Sequence[Design], room: BudgetBounds, baseline: FloatArray
) -> FloatArray:
    """The whole model's exact costs, ``[costs]``."""
    regions = [problem.region for problem in problems]
    changes = [
        sum(after - before for before, after in joint_costs(budget.cost, regions, designs))
        for budget in room.budgets
    ]
    return np.asarray(baseline + np.asarray(changes, dtype=np.float64))


def _score(problems: Sequence[Problem], designs: Sequence[Design]) -> float:
    pairs = zip(problems, designs, strict=True)
    return sum(problem.figures(design)[1] for problem, design in pairs)
