"""Speed: where measured latency meets plans and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cerewrite import ir
from cerewrite.clock import Clock
from cerewrite.errors import InfeasibleBudgetError, PlanError
from cerewrite.pipeline import apply, as_arguments
from cerewrite.pipeline import plan as make_plan

if TYPE_CHECKING:
    from torch import nn

ALIGNED = 16
"""Member widths that grouped kernels run at the efficiency of dense ones (DESIGN 5)."""


def bench(
    original: nn.Module, rewritten: nn.Module, example_inputs: Any, **options: Any
) -> tuple[ir.Timing, ...]:
    """Time a model before and after, in turns; see `cerewrite.bencher.bench`.

    Args:
        original: the model before.
        rewritten: the model after.
        example_inputs: as for `cerewrite.analyze`.
        options: ``engines`` ("eager", "compile", "onnxruntime"), ``batches``, ``thread_counts``,
            ``runs``.

    Raises:
        UsageError: if an engine is not known, or a number is below 1.
    """
    from cerewrite import bencher

    return bencher.bench(original, rewritten, as_arguments(example_inputs), **options)


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
        if any(timing.ratio > 1 for timing in timings):
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
    given = wanted.get("budget", "params")
    budgets = [given] if isinstance(given, str) else list(given)
    names = {text.partition("=")[0].strip() for item in budgets for text in item.split(",")}
    wanted["budget"] = budgets if "flops" in names else [*budgets, "flops"]
    wanted["min_width"] = max(wanted.get("min_width", 1), ALIGNED)
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
