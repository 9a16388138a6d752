"""One design for every region: fronts, then the allocation across regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Design
from cerewrite.planning.allocate import Allocation, allocate
from cerewrite.planning.budgets import write_amount
from cerewrite.planning.front import Front
from cerewrite.planning.limits import BudgetBounds, infeasible
from cerewrite.planning.measures.base import FloatArray
from cerewrite.planning.problem import Problem
from cerewrite.planning.search import Detail, build_front, detail_for

Objective = Literal["primal", "dual"]

SLACK = 1e-12
"""Relative rounding allowed when a plan's nu is held against the baseline's."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A design per region.

    Attributes:
        designs: one per region.
        gap: relative distance to the lower bound, at least 0.
        considered: designs looked at.
    """

    designs: tuple[Design, ...]
    gap: float
    considered: int


def choose_designs(
    problems: Sequence[Problem],
    room: BudgetBounds,
    objective: Objective,
    detail: Detail | None = None,
) -> Choice:
    """The best design of every region under the common budgets.

    Args:
        problems: the regions.
        room: the budgets.
        objective: ``primal`` or ``dual``.
        detail: how finely to search; what so many regions afford if not given.

    Raises:
        InfeasibleBudgetError: if the budgets cannot be met together, or (dual) not at the
            baseline's nu.
    """
    detail = detail or detail_for(len(problems))
    fronts = _fronts(problems, room, detail)
    solve = _primal if objective == "primal" else _dual
    allocation = solve(fronts, problems, room)
    if allocation is None:
        raise _conflict(problems, room, detail)
    designs = tuple(
        front.design(index) for front, index in zip(fronts, allocation.chosen, strict=True)
    )
    return Choice(designs, allocation.gap, sum(front.considered for front in fronts))


def _fronts(problems: Sequence[Problem], room: BudgetBounds, detail: Detail) -> list[Front]:
    cache: dict[object, Front] = {}
    fronts = []
    for number, problem in enumerate(problems):
        cap = room.cap(number)
        key = _key(problem, cap)
        if key not in cache:
            cache[key] = build_front(problem, detail, cap)
        fronts.append(cache[key])
    return fronts


def _conflict(
    problems: Sequence[Problem], room: BudgetBounds, detail: Detail
) -> InfeasibleBudgetError:
    """The refusal of budgets that can be met one by one: how far each must rise for the others."""
    nearest = []
    for number, budget in enumerate(room.budgets):
        cost, _, largest = room.feasible[number]
        lifted = list(room.budgets)
        lifted[number] = replace(budget, limit=max(largest, budget.limit))
        wider = replace(room, budgets=tuple(lifted))
        loads = [front.costs for front in _fronts(problems, wider, detail)]
        cheapest = allocate([load[:, number] for load in loads], loads, wider.limits)
        if cheapest is not None:
            least = float(room.fixed[number]) + cheapest.value
            others = [other.text for other in room.budgets if other is not budget]
            nearest.append(",".join([f"{cost}={write_amount(least)}", *others]))
    ranges = "; ".join(f"{cost} {low:,.0f} to {high:,.0f}" for cost, low, high in room.feasible)
    return InfeasibleBudgetError(
        f"the budgets {', '.join(b.text for b in room.budgets)} cannot be met together; one by "
        f"one, the designs of this model reach {ranges}",
        advice="the closest feasible requests are " + " or ".join(nearest)
        if nearest
        else "raise them all",
    )


def _key(problem: Problem, cap: FloatArray) -> object:
    """Regions of equal structure and sites share a front."""
    region = problem.region
    index = {name: number for number, name in enumerate(region.classes)}
    return (
        region.sizes,
        region.multiplicity,
        region.heads,
        tuple(
            (
                y.role,
                y.sources,
                y.target,
                y.in_channels,
                y.out_channels,
                y.kernel,
                y.positions,
                y.bias,
                y.settings,
                y.groups,
                y.times,
                y.writes,
            )
            for y in region.layers
        ),
        tuple(
            (tuple(index[name] for name in m.widths), m.params, m.flops, m.divisor, m.least)
            for m in region.modules
        ),
        tuple(
            (
                s.width,
                s.forward_share,
                s.backward_share,
                s.v_aa,
                s.v_bb,
                s.v_ab,
                s.rho,
                s.c_norm,
                s.excess,
                s.own,
            )
            for s in region.sites
        ),
        region.profile,
        region.kept,
        region.step,
        problem.held,
        problem.ceiling,
        tuple(cap),
    )


def _primal(
    fronts: Sequence[Front], problems: Sequence[Problem], room: BudgetBounds
) -> Allocation | None:
    ratios = room.limits / np.maximum(room.own.sum(axis=0), 1.0)
    alone = _alone(
        [front.score for front in fronts],
        [front.costs for front in fronts],
        room.own * ratios,
    )
    values, loads = [front.score for front in fronts], [front.costs for front in fronts]
    return allocate(values, loads, room.limits, alone)


def _dual(fronts: Sequence[Front], problems: Sequence[Problem], room: BudgetBounds) -> Allocation:
    own = np.asarray([problem.original()[1] for problem in problems])
    limits = np.concatenate([[own.sum() * (1.0 + SLACK)], room.limits])
    values = [front.costs[:, 0] for front in fronts]
    loads = [np.column_stack([front.score, front.costs]) for front in fronts]
    binding = np.append(True, room.limits < room.own.sum(axis=0))
    cut = [load[:, binding] for load in loads]
    each = np.column_stack([own * (1.0 + SLACK), room.own])[:, binding]
    allocation = allocate(values, cut, limits[binding], _alone(values, cut, each))
    if allocation is None:
        least = allocate(values, [load[:, :1] for load in loads], limits[:1])
        budget, (cost, _, largest) = room.budgets[0], room.feasible[0]
        if least is None:
            assert any(problem.held for problem in problems)
            raise InfeasibleBudgetError(
                "with the designs that are held, nothing within the budgets reaches the baseline's "
                + problems[0].measure.title,
                advice="hold wider designs, raise the budget, or drop --fix",
            )
        raise infeasible(
            budget, cost, float(room.fixed[0]) + least.value, largest, " at the baseline's nu"
        )
    return allocation


def _alone(
    values: Sequence[FloatArray], loads: Sequence[FloatArray], limits: FloatArray
) -> list[list[int]]:
    """Every region on its own share of the limits: the choice that a plan must not lose to."""
    chosen = []
    for value, load, limit in zip(values, loads, limits, strict=True):
        fits = np.flatnonzero((load <= limit).all(axis=1))
        if not len(fits):
            return []
        chosen.append(int(fits[int(np.argmin(value[fits]))]))
    return [chosen]
