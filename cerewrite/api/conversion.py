"""`convert`: every stage in a row, from a model to a verified and saved ensemble."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack, cast

from cerewrite import ir, output
from cerewrite.api.menu import choose, nothing_gained, profiled
from cerewrite.api.options import (
    AnalysisOptions,
    BenchOptions,
    ConvertOptions,
    ExportOptions,
    PlanOptions,
    check_options,
)
from cerewrite.api.saving import save, versions
from cerewrite.api.speed import checked_forecast, tightened, timed, timed_budgets
from cerewrite.api.stages import PathLike, analyze, as_arguments, as_inputs, passes_for
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import InfeasibleBudgetError, UsageError, VerificationError
from cerewrite.frontend.loading import read_inputs
from cerewrite.planning.budgets import BudgetRequest, batches_for, read_requests
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.rewriting import Pass

ROUNDS = 4
"""Plans that are built and timed, at most, to hold a limit on measured time."""

TIGHTER = 0.98
"""What a new limit leaves for noise."""

NEVER = 1e-6
"""A share of a limit that no design but the original meets."""


LEAST = 8
"""Fewer calibration examples than these are not divided: all are fitted and measured on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Conversion:
    """What `cerewrite.convert` returns.

    Attributes:
        model: the rewritten module, of the original's class.
        plan: what was done.
        analysis: what it rests on.
        verification: every check; all have passed.
        export: the ONNX file, if one was asked for.
        report: everything, as ``report.json`` holds it.
        renamed: old and new names of the parameters of swapped modules.
    """

    model: nn.Module
    plan: ir.Plan
    analysis: ir.Analysis
    verification: ir.Verification
    export: ir.Export | None
    report: ir.Report
    renamed: tuple[tuple[str, str], ...]


def convert(
    model: nn.Module,
    example_inputs: object = None,
    *,
    plan: ir.Plan | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    onnx: bool | ExportOptions = False,
    opset: int = 20,
    source: str | None = None,
    clock: Clock | None = None,
    bench: bool | BenchOptions = False,
    latency_batch: int | None = None,
    memory_batch: int | None = None,
    step_batch: int | None = None,
    profile: PathLike | ir.StepProfile | None = None,
    pick: str | None = None,
    unchanged: bool = False,
    calibration: object = None,
    **options: Unpack[ConvertOptions],
) -> Conversion:
    """Analyse, plan, rewrite, verify and, on request, export and save.

    Args:
        model: the model; left bit for bit as it is.
        example_inputs: as for `analyze`.
        plan: a plan to carry out instead of making one; takes the place of its options.
        out: folder to write; complete or absent, whatever happens.
        overwrite: replace an earlier conversion in ``out``.
        onnx: write ``model.onnx`` to ``out`` as well; a mapping gives options of
            `cerewrite.exporter.export_onnx`.
        opset: its operator set version.
        source: spec of the model's factory, which ``model_ce.py`` in ``out`` will call.
        clock: times the stages.
        bench: time the original and the rewritten model, and where that is slower an aligned
            plan's as well; a mapping gives options of `cerewrite.bench`.
        latency_batch: batch size of a latency budget, 1 if there is one. The built model is
            timed, and planned anew with a tighter limit where it is slower than was asked for.
        memory_batch: training batch whose memory is counted, 32 by default.
        step_batch: training batch of the steps that are timed, that of ``memory_batch`` by default
            where the step is held or limited.
        profile: times of training steps that `cerewrite profile` wrote, perhaps on another machine;
            they take the place of this one's, and what is built is not timed against them.
        pick: a row of the menu, instead of ``allow``; see `cerewrite.menu`.
        unchanged: write ``out`` even if nothing changes: a copy of the original.
        calibration: with ``weights="transfer"``, one batch of inputs as the model takes them, or
            a ``.npy`` or ``.npz`` file of them: members are fitted on three quarters, and the
            output error is measured on the last one (on ``example_inputs`` without any).
        options: those of `analyze` and `plan`.

    Raises:
        UnknownOptionError: if there is no such option.
        CerewriteError: see `analyze`, `plan`, `apply`, `export_onnx` and `save`.
        NothingGainedError: if ``out`` is given and no design is better within the limits, so that
            it would hold a copy of the original; nothing is written then.
        VerificationError: if a check fails; nothing is written then.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> result = convert(net, torch.ones(2, 64), budget="params", allow="step")
        >>> result.verification.passed, result.plan.planned.nu < result.plan.baseline.nu
        (True, True)
    """
    from cerewrite.frontend.unwrapping import unwrap

    if onnx is not False and out is None:
        raise UsageError("ONNX was asked for without a folder to write to", advice="give out")
    if out is not None:
        output.check_target(out, folder=True, overwrite=overwrite)
    clock = clock or Clock()
    model = unwrap(model)
    inputs = as_arguments(example_inputs)
    analysis_options, plan_options = _divide(options)
    batches = batches_for("params", latency_batch, memory_batch, step_batch, "all")
    if plan is None:
        plan_options["budget"] = read_requests(plan_options.get("budget", "params"))
        allow = plan_options.get("allow", ())
        batches = batches_for(
            plan_options["budget"], latency_batch, memory_batch, step_batch, allow
        )
        if profile is not None:
            batches["step_batch"] = None
    analysis = analyze(model, inputs, clock=clock, **batches, **analysis_options)
    assert inputs is not None, "a trace refuses no inputs"
    if profile is not None:
        analysis = profiled(analysis, profile)
    if plan is None:
        with clock("plan"):
            plan, plan_options = choose(analysis, pick, plan_options)
    if not plan.splits and out is not None and not unchanged:
        raise nothing_gained(plan)
    if analysis.scopes:
        analysis = analysis.at_scope(plan.scope)
    init = plan_options.get("init")
    fitted, unseen = _calibration(plan, calibration, inputs)
    passes = passes_for(init if callable(init) else None, fitted)

    def build(made: ir.Plan) -> Conversion:
        return _rewrite(model, made, analysis, inputs, clock, passes, unseen)

    result = build(plan)
    if timed_budgets(plan) and profile is None:
        result = _within_time(result, build, model, inputs, plan_options, clock)
    if bench is not False:
        planning = plan_options or _request(result.plan)
        asked = {} if bench is True else bench
        report = timed(
            result.report, model, result.model, inputs, clock=clock, asked=asked, planning=planning
        )
        result = dataclasses.replace(result, report=report)
    if out is None:
        return result
    if not result.plan.splits and plan.splits and not unchanged:
        raise nothing_gained(result.plan)
    export = save(
        out,
        result.model,
        result.plan,
        example_inputs=inputs,
        source=source,
        report=result.report,
        onnx=onnx,
        opset=opset,
        overwrite=overwrite,
        clock=clock,
    )
    report = dataclasses.replace(result.report, export=export, seconds=clock.seconds)
    return dataclasses.replace(result, export=export, report=report)


def _calibration(
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


def _request(plan: ir.Plan) -> PlanOptions:
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


def _divide(options: ConvertOptions) -> tuple[AnalysisOptions, PlanOptions]:
    """Which verb takes which option; the seed serves both."""
    check_options(convert, options, ConvertOptions)
    analysis_options = {k: v for k, v in options.items() if k in AnalysisOptions.__annotations__}
    plan_options = {k: v for k, v in options.items() if k in PlanOptions.__annotations__}
    return cast(AnalysisOptions, analysis_options), cast(PlanOptions, plan_options)


def _within_time(
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


def _rewrite(
    model: nn.Module,
    made: ir.Plan,
    analysis: ir.Analysis,
    inputs: ir.Inputs,
    clock: Clock,
    passes: Sequence[Pass],
    unseen: ir.Inputs,
) -> Conversion:
    """Rewrite, verify, and refuse a model that fails a check."""
    from cerewrite import planning, rewriting, verifier

    with clock("rewrite"):
        made = planning.recount(made)
        rewritten = rewriting.rewrite(made, model, passes=passes)
        made = dataclasses.replace(made, renamed=rewritten.renamed)
    with clock("verify"):
        verification = verifier.verify(model, rewritten.model, made, inputs)
        if made.weights == "transfer" and made.splits:
            drawing = [item for item in passes if item.name != "transfer_weights"]
            redrawn = rewriting.rewrite(made, model, passes=drawing)
            check = verifier.check_transfer(model, rewritten.model, redrawn.model, unseen)
            verification = ir.Verification((*verification.checks, check))
    if verification.failures:
        failed = "; ".join(f"{check.name}: {check.detail}" for check in verification.failures)
        raise VerificationError(
            f"the rewritten {made.model} fails its checks: {failed}",
            advice="exclude the layers that are named; if none is, report this as a bug",
        )
    report = ir.Report(
        analysis=analysis,
        plan=made,
        verification=verification,
        renamed=rewritten.renamed,
        seconds=clock.seconds,
        versions=versions(),
    )
    return Conversion(
        rewritten.model, made, analysis, verification, None, report, rewritten.renamed
    )
