"""Time limits held on what was built: timed, and planned anew where it is slower than asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from cerewrite import ir
from cerewrite.api.options import PlanOptions
from cerewrite.api.speed import checked_forecast, tightened, timed_budgets
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import InfeasibleBudgetError
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.api.conversion import Conversion

ROUNDS = 4
"""Plans that are built and timed, at most, to hold a limit on measured time."""

TIGHTER = 0.98
"""What a new limit leaves for noise."""

NEVER = 1e-6
"""A share of a limit that no design but the original meets."""


def within_time(
    first: Conversion,
    build: Callable[[ir.Plan], Conversion],
    model: nn.Module,
    inputs: ir.Inputs,
    planning: PlanOptions,
    clock: Clock,
) -> Conversion:
    """Time what was built; plan anew, with a lower target, while it is slower than the limits.

    The first within the limits is taken. If none is, it is the original where the limits permit
    that, with a plan that says so, else the fastest; the report holds forecast and measurement.
    """
    analysis, limits = first.analysis, timed_budgets(first.plan)
    result, tried, aims = first, [], dict.fromkeys((b.cost for b in limits), 1.0)
    for rounds in range(1, ROUNDS + 1):
        if not result.plan.splits:
            break
        with clock("bench"):
            forecasts = [
                checked_forecast(result.plan, b, analysis, model, result.model, inputs, rounds)
                for b in limits
            ]
        worst = max(forecasts, key=lambda item: item.excess)
        tried.append((result, worst))
        if worst.excess <= 1.0 or not planning:
            break
        for item in forecasts:
            if item.excess > 1.0:
                aims[item.cost] *= TIGHTER * item.asked / item.measured.ratio
        try:
            with clock("plan"):
                plan = make_plan(analysis, **tightened(planning, aims))
        except InfeasibleBudgetError:
            break
        shares = {b.cost: aims[b.cost] * b.limit / b.before for b in limits}
        told = [f"{b.cost} tightened to {shares[b.cost]:.3f}x" for b in limits if aims[b.cost] < 1]
        note = f"{', '.join(told)} after timing what was built"
        result = build(dataclasses.replace(plan, note=note, menu=first.plan.menu))
    if not tried:
        return result
    chosen, forecast = min(tried, key=lambda pair: max(pair[1].excess, 1.0))
    within = forecast.excess <= 1.0 or not planning
    if not within and all(b.limit >= b.before for b in limits):
        plan = make_plan(analysis, **tightened(planning, dict.fromkeys(aims, NEVER)))
        if not plan.splits:
            note = (
                f"built and timed, {len(tried)} plans took {forecast.measured.ratio:.2f}x of the "
                f"original's {forecast.cost} or more: the original is kept"
            )
            return build(dataclasses.replace(plan, note=note, menu=first.plan.menu))
    report = dataclasses.replace(chosen.report, forecast=forecast, seconds=clock.seconds)
    return dataclasses.replace(chosen, report=report)
