"""Speed: where measured latency meets plans and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack

from cerewrite import ir
from cerewrite.api.options import BenchOptions, PlanOptions, check_options
from cerewrite.api.stages import apply, as_inputs
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import PlanError
from cerewrite.ir.timing import TOLERANCE
from cerewrite.planning.budgets import (
    BUDGETS,
    BudgetRequest,
    planned_cost,
    read_allowances,
    read_requests,
)
from cerewrite.planning.members import held_costs
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
        options: ``engines`` ("eager", "compile", "onnxruntime", "step"), ``batches``,
            ``thread_counts``, ``runs``.

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
    asked_for["allow"] = _as_given(_allowed(planning))
    wanted = asked_for.copy()
    if all(request.cost != "flops" for request in requests):
        wanted["budget"] = (*requests, BudgetRequest.parse("flops"))
        wanted["allow"] = _as_given(
            {cost: item for cost, item in _allowed(planning).items() if cost != "flops"}
        )
    wanted["min_width"] = max(wanted.get("min_width") or 1, ALIGNED)
    if wanted.get("channel_multiple", 1) % ALIGNED:
        wanted["channel_multiple"] = ALIGNED
    if wanted == asked_for:
        return None
    try:
        plan = make_plan(analysis, **wanted)
    except PlanError:
        return None
    if not plan.splits:
        return None
    built = apply(plan, original, max_params=plan.planned.params)
    timings = bench(original, built, inputs, **asked)
    budgets = " ".join(f"--budget {item.text}" for item in read_requests(wanted["budget"]))
    multiple = wanted.get("channel_multiple", 1)
    how = f"{budgets} --min-width {wanted['min_width']} --channel-multiple {multiple}"
    what = f"widths in multiples of {ALIGNED}, FLOPs held ({how})"
    return ir.Alternative(what, plan.planned, timings)


CHECKED = 0.5
"""Seconds of one training step of the original when a plan is checked, about."""


def timed_budgets(plan: ir.Plan) -> list[ir.Budget]:
    """The limits on measured time: of a call, of a training step."""
    return [b for b in plan.budgets if (BUDGETS[b.cost].timed or BUDGETS[b.cost].trains)]


def checked_forecast(
    plan: ir.Plan,
    limit: ir.Budget,
    analysis: ir.Analysis,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: ir.Inputs,
    rounds: int,
) -> ir.Forecast:
    """What a plan was forecast to take of a limit on time, and what the built model takes.

    Args:
        plan: the plan.
        limit: one of its budgets, on a measured cost.
        analysis: what the plan was made from.
        original: the model before.
        rewritten: the model after.
        inputs: a tuple or dict of tensors.
        rounds: which attempt this is, from 1.
    """
    trains = BUDGETS[limit.cost].trains
    profiles = [r.step if trains else r.profile for r in (e.region for e in analysis.regions)]
    batch = next(profile.batch for profile in profiles if profile is not None)
    if trains:
        batch = min(batch, max(2, int(batch * CHECKED * 1e9 / max(limit.before, 1))))
    engine = "step" if trains else "eager"
    (timing,) = bench(original, rewritten, inputs, engines=[engine], batches=[batch], runs=5)
    return ir.Forecast(
        asked=limit.limit / limit.before,
        forecast=planned_cost(plan, limit) / limit.before,
        measured=timing,
        rounds=rounds,
        cost=limit.cost,
        tolerance=TOLERANCE if limit.held else 1.0,
    )


def tightened(planning: PlanOptions, aims: Mapping[str, float]) -> PlanOptions:
    """A request that is searched below shares of its limits on some costs, named or held."""
    requests = read_requests(planning.get("budget", "params"))
    named = [request.cost for request in requests]
    allowed = _allowed(planning)
    for cost in aims.keys() - set(named):
        request = allowed.get(cost, BudgetRequest.parse(cost))
        assert request is not None, f"{cost} is timed, so something limits it"
        allowed[cost] = request.tightened(aims[cost])
    return {
        **planning,
        "budget": tuple(item.tightened(aims.get(item.cost, 1.0)) for item in requests),
        "allow": _as_given(allowed),
    }


def _allowed(planning: PlanOptions) -> dict[str, BudgetRequest | None]:
    """What the held costs of a request may rise to."""
    named = [request.cost for request in read_requests(planning.get("budget", "params"))]
    return read_allowances(planning.get("allow", ()), named, held_costs(planning.get("members")))


def _as_given(allowed: Mapping[str, BudgetRequest | None]) -> tuple[str | BudgetRequest, ...]:
    return tuple(cost if item is None else item for cost, item in allowed.items())
