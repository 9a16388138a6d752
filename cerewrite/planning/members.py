"""A design for an ensemble that is asked member by member: m given, widths in proportion."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import numpy as np

from cerewrite.errors import InfeasibleBudgetError, PlanError, UsageError
from cerewrite.ir import Analysis, Budget, Region
from cerewrite.planning.budgets import BUDGETS
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import Constraints

MEMBERS = 4
"""Members where ``auto`` are asked for. At equal parameters 4 members on their own losses gained
in NLL, calibration and shifts on every first task, and their widths, half of the original's, keep
the original's FLOPs too; 16 members of a quarter gained no more and take longer per step."""

MULTIPLES = (16, 8, 4, 2, 1)
"""What member widths are made multiples of, the first that loses little: kernels like them."""

ENOUGH = 0.85
"""Share of the fullest budget that a coarser multiple must still use."""

SCALES = np.geomspace(1e-3, 1.0, 4000)
"""Widths that are tried, in units of the original's."""

HELD = ("params", "flops")
"""Costs that are held: members serve disagreement and uncertainty, and what they take in memory
and time is printed, and held only where a budget names it."""


def held_costs(members: int | str | None) -> tuple[str, ...] | None:
    """What a request holds besides its budgets; None for `budgets.HELD`, without members."""
    return None if members is None else HELD


def parse_members(members: int | str) -> int:
    """How many members: a number of at least 2, or ``auto`` for `MEMBERS`.

    Raises:
        UsageError: if it is neither.

    Example:
        >>> parse_members("auto"), parse_members("8"), parse_members(2)
        (4, 8, 2)
    """
    count = MEMBERS if members == "auto" else members
    if isinstance(count, str) and count.isdecimal():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise UsageError(
            f"{members!r} members", advice=f"give a number of at least 2, or auto for {MEMBERS}"
        )
    return count


def designed(
    analysis: Analysis,
    regions: Sequence[Region],
    members: int,
    budgets: Sequence[Budget],
    constraints: Constraints,
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """The design of the one region, as designs by hand are given.

    Raises:
        CerewriteError: see `whole_region` and `members_design`.
    """
    region = whole_region(analysis, regions)
    own = np.asarray([region.widths], dtype=np.int64)
    now = _costs(region, region.multiplicity, budgets, own)[0]
    rest = [
        BUDGETS[budget.cost].baseline(analysis) - cost
        for budget, cost in zip(budgets, now, strict=True)
    ]
    return {region.name: members_design(region, members, budgets, rest, constraints)}


def whole_region(analysis: Analysis, regions: Sequence[Region]) -> Region:
    """The one region of a model that can be an ensemble from input to output.

    Raises:
        UsageError: if the analysis has another scope.
        PlanError: if there are several regions; the message names them.
    """
    if analysis.scope != "network":
        raise UsageError(
            f"members that can be asked reach from input to output, the scope is "
            f"'{analysis.scope}'",
            advice="analyze with scope='network' (--scope network)",
        )
    if len(regions) != 1:
        names = ", ".join(f"'{region.name}'" for region in regions[:4]) or "none"
        raise PlanError(
            f"{analysis.model} has {len(regions)} regions ({names}): members would be added up "
            "between them, and none of them could be asked",
            advice="drop --include and --exclude; `cerewrite explain LAYER` says what divides them",
        )
    return regions[0]


def check_mean(exit_scale: str, scope: str, splits: int) -> None:
    """Refuse members' means where they are not what the model returns.

    A region whose exits carry ``1 / m`` instead of ``1 / sqrt(m)`` writes values that are
    ``sqrt(m)`` times smaller. At the end of the network that changes no measure: the tangent
    kernel of a mean is that of the sum over m, and nu, Var[log K] and the kappas are free of
    scale. Inside a network it would shrink the region's share of everything that follows, and no
    measure of the plan would hold.

    Raises:
        UsageError: if the scope is not ``network``, or several regions are split.
    """
    if exit_scale == "mean" and (scope != "network" or splits > 1):
        where = f"scope '{scope}'" if scope != "network" else f"{splits} regions"
        raise UsageError(
            f"exit_scale 'mean' at {where}: regions that others read would write values "
            "sqrt(m) times too small",
            advice="choose scope='network' and a model of one region, or exit_scale='explicit'",
        )


def members_design(
    region: Region,
    members: int,
    budgets: Sequence[Budget],
    fixed: Sequence[float],
    constraints: Constraints,
) -> tuple[int, tuple[int, ...]]:
    """The widest members in the original's proportions that the budgets allow.

    Of the first design that is too wide one class may be taken a step back. Widths
    are multiples of 16, 8, 4, 2 or 1: the first of these with which the fullest budget is used by
    `ENOUGH` of the most that any of them uses.

    Args:
        region: the model's one region.
        members: how many.
        budgets: the limits; all hold.
        fixed: per budget, what the rest of the model costs.
        constraints: least width, and a multiple of the user's own.

    Returns:
        members, and the width of one per class.

    Raises:
        InfeasibleBudgetError: if not even the narrowest members fit.
    """
    limits = np.asarray([b.limit for b in budgets]) - np.asarray(fixed)
    found = []
    for multiple in MULTIPLES:
        steps = [lcm(multiple, constraints.channel_multiple, step) for step in region.steps]
        rows = _widths(region, steps, constraints)
        fits = (_costs(region, members, budgets, rows) <= limits).all(axis=1)
        if fits.any():
            last = int(np.flatnonzero(fits)[-1])
            rows = np.concatenate([rows[last : last + 1], _lowered(rows[last:], steps)])
            costs = _costs(region, members, budgets, rows)
            used = (costs / np.maximum(limits, 1.0)).max(axis=1)
            used[~(costs <= limits).all(axis=1)] = -1.0
            best = int(used.argmax())
            found.append((float(used[best]), tuple(int(width) for width in rows[best])))
    if not found:
        asked = ", ".join(budget.text for budget in budgets)
        raise InfeasibleBudgetError(
            f"{members} members of '{region.name}' do not fit into {asked}, however narrow",
            advice="ask for fewer members, a larger budget, or a smaller --min-width",
        )
    most = max(used for used, _ in found)
    return members, next(widths for used, widths in found if used >= ENOUGH * most)


def _lowered(rows: IntArray, steps: Sequence[int]) -> IntArray:
    """The first row that is too wide, one class a step narrower, by a quarter of it at most."""
    if len(rows) < 2:
        return rows[:0]
    lowered = np.maximum(rows[1] - np.diag(np.asarray(steps, dtype=np.int64)), rows[0])
    return np.asarray(lowered[(4 * lowered >= 3 * rows[1]).all(axis=1)])


def _widths(region: Region, steps: Sequence[int], constraints: Constraints) -> IntArray:
    """Member widths at every scale, rounded to allowed ones, ``[scales, classes]``, ascending."""
    columns = []
    sizes = zip(region.sizes, region.widths, steps, region.least, region.grains, strict=True)
    for size, own, unit, least, grain in sizes:
        first = -(-max(constraints.least(own, grain), least) // unit) * unit
        wanted = np.floor(SCALES * size / unit + 0.5).astype(np.int64) * unit
        columns.append(np.maximum(wanted, first))
    return np.unique(np.stack(columns, axis=-1), axis=0)


def _costs(region: Region, members: int, budgets: Sequence[Budget], rows: IntArray) -> FloatArray:
    """What every design costs, ``[designs, budgets]``."""
    count = np.asarray([members], dtype=np.int64)
    tables = [BUDGETS[budget.cost].region(region).table(count, rows)[:, 0] for budget in budgets]
    return np.stack(tables, axis=-1).astype(np.float64)
