"""Several scopes under the same budgets: which one wins, and by how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cerewrite.errors import PlanError, UsageError
from cerewrite.ir import Analysis, Plan, ScopeOutcome
from cerewrite.planning.budgets import planned_cost
from cerewrite.planning.make import make_plan
from cerewrite.planning.measures import DEFAULT, MEASURES


def compare_scopes(analysis: Analysis, *, measure: str = DEFAULT, **options: Any) -> Plan:
    """The best of every scope's plan, with the comparison in `Plan.scopes`.

    Each plan is held against its own baseline (see `ScopeOutcome`); of equal gains the narrower
    scope wins. A rule or a constraint that leaves one scope nothing to do refuses that scope.

    Args:
        analysis: made at scope ``auto``.
        measure: registered measure that the plans make small and are compared by.
        options: the others of `make_plan`.

    Raises:
        CerewriteError: if no scope has a plan, that of the first scope with a region, whose remedy
            is nearest; of the widest scope, if none has one.
    """
    plans: dict[str, Plan] = {}
    outcomes: list[ScopeOutcome] = []
    errors: list[tuple[bool, PlanError | UsageError]] = []
    for findings in analysis.scopes:
        try:
            plan = make_plan(analysis.at_scope(findings.scope), measure=measure, **options)
        except (PlanError, UsageError) as error:
            errors.append((bool(findings.regions), error))
            now = MEASURES[measure].of(findings.measures).value
            same = (analysis.params, analysis.flops, now, now)
            outcomes.append(ScopeOutcome(findings.scope, 0, *same, 1.0, refused=error.message))
            continue
        plans[findings.scope] = plan
        outcomes.append(_outcome(plan))
    if not plans:
        raise next((error for regions, error in errors if regions), errors[-1][1])
    won = max((item for item in outcomes if item.scope in plans), key=lambda item: item.gain)
    marked = tuple(replace(item, chosen=item is won) for item in outcomes)
    return replace(plans[won.scope], scopes=marked)


def _outcome(plan: Plan) -> ScopeOutcome:
    old, new = plan.baseline, plan.planned
    measure = MEASURES[plan.measure]
    before, after = measure.of(old.measures), measure.of(new.measures)
    if plan.objective == "dual":
        first = plan.budgets[0]
        own = first.before or getattr(old, first.cost)
        gain = own / max(planned_cost(plan, first), 1)
    else:
        gain = before / after if after > 0 else 1.0
    splits = len(plan.splits)
    return ScopeOutcome(plan.scope, splits, new.params, new.flops, before, after, gain)
