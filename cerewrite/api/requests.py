"""What a conversion asks of its stages, as far as a plan or the user says."""

from __future__ import annotations

import os

from cerewrite import ir
from cerewrite.api.options import AnalysisOptions, PlanOptions
from cerewrite.api.stages import as_inputs
from cerewrite.errors import UsageError
from cerewrite.frontend.loading import read_inputs
from cerewrite.planning.budgets import BudgetRequest

LEAST = 8
"""Fewer calibration examples than these are not divided: all are fitted and measured on."""


def calibration_of(
    plan: ir.Plan, given: object, inputs: ir.Inputs
) -> tuple[ir.Inputs | None, ir.Inputs]:
    """Inputs to fit a warm start on, and inputs to measure it on."""
    from cerewrite.rewriting.transfer.calibration import divide, examples

    if given is None:
        return None, inputs
    if plan.weights != "transfer":
        raise UsageError(
            "calibration inputs were given, but the plan draws its weights anew",
            advice="ask for a plan with weights='transfer'",
        )
    batch = read_inputs(given) if isinstance(given, str | os.PathLike) else as_inputs(given)
    count = examples(batch)
    return divide(batch, count - count // 4) if count >= LEAST else (batch, batch)


def request_of(plan: ir.Plan) -> PlanOptions:
    """The request that a plan answers, as far as the plan says."""
    requests = tuple(map(BudgetRequest.of, plan.budgets))
    return PlanOptions(
        budget=requests or "params",
        allow="all",
        widths="free" if plan.member_widths == "free" else "proportional",
        objective="dual" if plan.objective == "dual" else "primal",
        measure=plan.measure,
        seed=plan.seed,
    )


def recorded_analysis(plan: ir.Plan) -> AnalysisOptions:
    """The analysis that a plan was made of, as far as the plan says: the same figures again."""
    options = AnalysisOptions(
        parametrization=plan.parametrization, gain=plan.gain, scope=plan.scope, seed=plan.seed
    )
    if plan.estimator:
        options["estimator"] = plan.estimator
    if plan.draws:
        options["draws"] = plan.draws
    return options
