"""Speed: where measured latency meets plans and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cerewrite import ir
from cerewrite.api.stages import apply, as_arguments
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import InfeasibleBudgetError, PlanError
from cerewrite.planning.budgets import BUDGETS, budget_parts, planned_cost
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

ALIGNED = 16
"""Member widths that grouped kernels run at the efficiency of dense ones (DESIGN 5)."""


def bench(
    original: nn.Module, rewritten: nn.Module, example_inputs: Any, **options: Any
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
    """
    from cerewrite import timing

    with alone():
        return timing.bench(original, rewritten, as_arguments(example_inputs), **options)


def timed(
    report: ir.Report,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: Any,
    *,
    clock: Clock,
    asked: Mapping[str, Any],
    planning: Mapping[str, Any],
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
    inputs: Any,
    asked: Mapping[str, Any],
    planning: Mapping[str, Any],
) -> ir.Alternative | None:
    """The same request with FLOPs held and members of widths that kernels like, built and timed.

    None where that is what was asked for already, or where no design meets it.
    """
    wanted = dict(planning)
    parts = budget_parts(wanted.get("budget", "params"))
    budgets = [text for _, text in parts]
    held = "flops" in {cost for cost, _ in parts}
    wanted["budget"] = budgets if held else [*budgets, "flops"]
    wanted["min_width"] = max(wanted.get("min_width") or 1, ALIGNED)
    if wanted.get("channel_multiple", 1) % ALIGNED:
        wanted["channel_multiple"] = ALIGNED
    if wanted == dict(planning):
        return None
    try:
        plan = make_plan(analysis, **wanted)
    except (PlanError, InfeasibleBudgetError):
        return None
    if not plan.splits:
        return None
    timings = bench(original, apply(plan, original), inputs, **asked)
    return ir.Alternative(f"widths in multiples of {ALIGNED}, FLOPs held", plan.planned, timings)


def checked_forecast(
    plan: ir.Plan,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: Any,
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


def tightened(planning: Mapping[str, Any], cost: str, share: float) -> dict[str, Any]:
    """A request with another limit on one cost, as a share of the original's."""
    parts = budget_parts(planning.get("budget", "params"))
    texts = [f"{cost}={share:.6f}x" if name == cost else text for name, text in parts]
    return {**planning, "budget": texts}
