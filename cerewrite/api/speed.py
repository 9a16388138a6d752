"""Speed: where measured latency meets plans and reports."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Unpack

from cerewrite import ir
from cerewrite.api.options import BenchOptions, PlanOptions, check_options
from cerewrite.api.stages import apply, as_inputs
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import InfeasibleBudgetError, PlanError
from cerewrite.planning.budgets import BUDGETS, BudgetRequest, planned_cost, read_requests
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

ALIGNED = 16
"""Member widths that grouped kernels run at the efficiency of dense ones (DESIGN 5)."""


def bench(
    original: nn.Module,
    rewritten: nn.Module,
    example_inputs: object,
    **options: Unpack[BenchOptions],
) -> tuple[ir.Timing, ...]:
    """Time a model before and after, in turns; see `cerewrite.timing.comparison`.

    Args:
        original: the model before.
        rewritten: the model after.
        example_inputs: as for `cerewrite.analyze`.
        options: ``engines`` ("eager", "compile", "onnxruntime"), ``batches``, ``thread_counts``,
            ``runs``.

    Raises:
        UsageError: if an engine is not known, or a number is below 1.
        UnknownOptionError: if there is no such option.
    """
    from cerewrite import timing

    check_options(bench, options, BenchOptions)
    with alone():
        return timing.bench(original, rewritten, as_inputs(example_inputs), **options)


def timed(
    report: ir.Report,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: ir.Inputs,
    *,
    clock: Clock,
    asked: BenchOptions,
    planning: PlanOptions,
) -> ir.Report:
    """A report with timings and, where the rewritten model is slower, the aligned plan's.

    Args:
        report: a report with analysis and plan.
        original: the model before.
        rewritten: the model after.
        inputs: a tuple or dict of tensors.
        clock: times the stage.
        asked: options of `bench`.
        planning: options of the plan.
    """
    with clock("bench"):
        timings = bench(original, rewritten, inputs, **asked)
        other = None
        if any(timing.slower for timing in timings):
            other = _aligned(report.analysis, original, inputs, asked, planning)
    return dataclasses.replace(report, timings=timings, alternative=other)


def _aligned(
    analysis: ir.Analysis,
    original: nn.Module,
    inputs: ir.Inputs,
    asked: BenchOptions,
    planning: PlanOptions,
) -> ir.Alternative | None:
    """The same request with FLOPs held and members of widths that kernels like, built and timed.

    None where that is what was asked for already, or where no design meets it.
    """
    requests = read_requests(planning.get("budget", "params"))
    asked_for: PlanOptions = {**planning, "budget": requests}
    wanted = asked_for.copy()
    held = any(request.cost == "flops" for request in requests)
    wanted["budget"] = requests if held else (*requests, BudgetRequest.parse("flops"))
    wanted["min_width"] = max(wanted.get("min_width") or 1, ALIGNED)
    if wanted.get("channel_multiple", 1) % ALIGNED:
        wanted["channel_multiple"] = ALIGNED
    if wanted == asked_for:
        return None
    try:
        plan = make_plan(analysis, **wanted)
    except (PlanError, InfeasibleBudgetError):
        return None
    if not plan.splits:
        return None
    built = apply(plan, original, max_params=plan.planned.params)
    timings = bench(original, built, inputs, **asked)
    return ir.Alternative(f"widths in multiples of {ALIGNED}, FLOPs held", plan.planned, timings)


def checked_forecast(
    plan: ir.Plan,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: ir.Inputs,
    *,
    batch: int,
    asked: float,
    rounds: int,
) -> ir.Forecast:
    """The latency that a plan was forecast to have, and what the built model takes.

    Args:
        plan: a plan with a latency budget.
        original: the model before.
        rewritten: the model after.
        inputs: a tuple or dict of tensors.
        batch: examples per call that the budget speaks of.
        asked: the user's limit, as a share of the original's latency.
        rounds: which attempt this is, from 1.
    """
    limit = next(b for b in plan.budgets if BUDGETS[b.cost].timed)
    (timing,) = bench(original, rewritten, inputs, engines=["eager"], batches=[batch])
    return ir.Forecast(asked, planned_cost(plan, limit) / limit.before, timing, rounds)


def tightened(planning: PlanOptions, cost: str, share: float) -> PlanOptions:
    """A request with another limit on one cost, as a share of the original's."""
    requests = read_requests(planning.get("budget", "params"))
    budget = tuple(item.tightened(share) if item.cost == cost else item for item in requests)
    return {**planning, "budget": budget}
