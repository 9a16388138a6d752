"""`convert`: every stage in a row, from a model to a verified and saved ensemble."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from cerewrite import ir, output
from cerewrite.api.promise import keep_promise
from cerewrite.api.saving import save, versions
from cerewrite.api.speed import checked_forecast, tightened, timed
from cerewrite.api.stages import (
    AnalysisOptions,
    PathLike,
    PlanOptions,
    analyze,
    as_arguments,
    passes_for,
)
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import InfeasibleBudgetError, UsageError, VerificationError
from cerewrite.frontend.loading import read_inputs
from cerewrite.planning.budgets import BUDGETS, batches_for
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.rewriting import Pass

ROUNDS = 4
"""Plans that are built and timed, at most, to hold a latency budget."""

TIGHTER = 0.98
"""What a new limit leaves for noise."""


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


class ConvertOptions(AnalysisOptions, PlanOptions, total=False):
    """Options of `convert`: those of `analyze` and of `plan`."""


def convert(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    plan: ir.Plan | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    onnx: bool | Mapping[str, Any] = False,
    opset: int = 20,
    source: str | None = None,
    clock: Clock | None = None,
    bench: bool | Mapping[str, Any] = False,
    latency_batch: int | None = None,
    memory_batch: int | None = None,
    calibration: Any = None,
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
        memory_batch: training batch of a memory budget, 32 if there is one.
        calibration: with ``weights="transfer"``, one batch of inputs as the model takes them, or
            a ``.npy`` or ``.npz`` file of them: members are fitted on three quarters, and the
            output error is measured on the last one (on ``example_inputs`` without any).
        options: those of `analyze` and `plan`.

    Raises:
        CerewriteError: see `analyze`, `plan`, `apply`, `export_onnx` and `save`.
        VerificationError: if a check fails; nothing is written then.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> result = convert(net, torch.randn(2, 64), budget="params", draws=16)
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
    batches = {"latency_batch": latency_batch, "memory_batch": memory_batch}
    if plan is None:
        batches = batches_for(plan_options.get("budget", "params"), latency_batch, memory_batch)
    else:
        analysis_options = cast(AnalysisOptions, {**_recorded(plan), **analysis_options})
    found = analyze(model, inputs, clock=clock, **batches, **analysis_options)
    given = plan is not None
    if plan is None:
        with clock("plan"):
            plan = make_plan(found, **plan_options)
    if found.scopes:
        found = found.at_scope(plan.scope)
    init = plan_options.get("init")
    fitted, unseen = _calibration(plan, calibration, inputs)
    passes = passes_for(init if callable(init) else None, fitted)

    def build(made: ir.Plan, of: ir.Analysis = found) -> Conversion:
        return _rewrite(model, made, of, inputs, clock, passes, unseen)

    result = build(plan)
    drawn = max(found.nu.samples, found.leading_order.samples) > 0
    if drawn and result.plan.splits:
        own = None if given else plan_options
        result = keep_promise(result, build, (model, inputs, analysis_options), own, clock)
        found = result.analysis
    if found.latency and any(BUDGETS[b.cost].timed and b.before for b in plan.budgets):
        result = _within_latency(result, build, model, inputs, plan_options, clock)
    if bench is not False:
        planning = plan_options or _request(result.plan)
        asked = {} if bench is True else bench
        report = timed(
            result.report, model, result.model, inputs, clock=clock, asked=asked, planning=planning
        )
        result = dataclasses.replace(result, report=report)
    if out is None:
        return result
    saving = {"source": source, "onnx": onnx, "opset": opset, "overwrite": overwrite}
    return _saved(result, out, inputs, clock, saving)


def _saved(
    result: Conversion, out: PathLike, inputs: Any, clock: Clock, options: Mapping[str, Any]
) -> Conversion:
    """Write the folder; the result then knows its export, and how long all of it took."""
    export = save(
        out,
        result.model,
        result.plan,
        example_inputs=inputs,
        report=result.report,
        clock=clock,
        **options,
    )
    report = dataclasses.replace(result.report, export=export, seconds=clock.seconds)
    return dataclasses.replace(result, export=export, report=report)


def _calibration(plan: ir.Plan, given: Any, inputs: Any) -> tuple[Any, Any]:
    """Inputs to fit a warm start on, and inputs to measure it on."""
    from cerewrite.rewriting.transfer.calibration import divide, examples

    if given is None:
        return None, inputs
    if plan.weights != "transfer":
        raise UsageError(
            "calibration inputs were given, but the plan draws its weights anew",
            advice="ask for a plan with weights='transfer'",
        )
    batch = read_inputs(given) if isinstance(given, str | os.PathLike) else as_arguments(given)
    count = examples(batch)
    return divide(batch, count - count // 4) if count >= LEAST else (batch, batch)


def _request(plan: ir.Plan) -> PlanOptions:
    """The request that a plan answers, as far as the plan says."""
    budgets = [budget.text for budget in plan.budgets]
    return PlanOptions(
        budget=budgets or "params",
        objective=cast(Any, plan.objective),
        measure=plan.measure,
        seed=plan.seed,
    )


def _recorded(plan: ir.Plan) -> AnalysisOptions:
    """The analysis that a plan was made of, as far as the plan says: the same figures again."""
    options = AnalysisOptions(
        parametrization=plan.parametrization, gain=plan.gain, scope=plan.scope, seed=plan.seed
    )
    if plan.estimator:
        options["estimator"] = plan.estimator
    if plan.draws:
        options["draws"] = plan.draws
    return options


def _divide(options: ConvertOptions) -> tuple[AnalysisOptions, PlanOptions]:
    """Which verb takes which option; the seed serves both."""
    for name in options:
        if name not in ConvertOptions.__annotations__:
            raise TypeError(f"convert() got an unexpected keyword argument '{name}'")
    analysis_options = {k: v for k, v in options.items() if k in AnalysisOptions.__annotations__}
    plan_options = {k: v for k, v in options.items() if k in PlanOptions.__annotations__}
    return cast(AnalysisOptions, analysis_options), cast(PlanOptions, plan_options)


def _within_latency(
    first: Conversion,
    build: Callable[[ir.Plan], Conversion],
    model: nn.Module,
    inputs: Any,
    planning: PlanOptions,
    clock: Clock,
) -> Conversion:
    """Time what was built; plan anew with a tighter limit while it is slower than asked for.

    Of all that was built the first within the limit is taken, else the fastest; its report holds
    forecast and measurement.
    """
    found = first.analysis
    limit = next(b for b in first.plan.budgets if BUDGETS[b.cost].timed)
    batch = next(e.region.profile.batch for e in found.regions if e.region.profile is not None)
    asked = limit.limit / limit.before
    result, tried, allowed = first, [], asked
    for rounds in range(1, ROUNDS + 1):
        with clock("bench"):
            forecast = checked_forecast(
                result.plan,
                model,
                result.model,
                inputs,
                batch=batch,
                asked=asked,
                rounds=rounds,
            )
        tried.append((result, forecast))
        if forecast.measured.ratio <= asked or not planning:
            break
        allowed *= TIGHTER * asked / forecast.measured.ratio
        wanted = tightened(planning, limit.cost, allowed)
        try:
            with clock("plan"):
                plan = make_plan(found, **wanted)
        except InfeasibleBudgetError:
            break
        note = f"{limit.text}: limit tightened to {allowed:.3f}x after timing what was built"
        result = build(dataclasses.replace(plan, note=note))
    chosen, forecast = min(tried, key=lambda pair: max(pair[1].measured.ratio, asked))
    report = dataclasses.replace(chosen.report, forecast=forecast, seconds=clock.seconds)
    return dataclasses.replace(chosen, report=report)


def _rewrite(
    model: nn.Module,
    made: ir.Plan,
    found: ir.Analysis,
    inputs: Any,
    clock: Clock,
    passes: Sequence[Pass],
    unseen: Any,
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
        analysis=found,
        plan=made,
        verification=verification,
        renamed=rewritten.renamed,
        seconds=clock.seconds,
        versions=versions(),
    )
    return Conversion(rewritten.model, made, found, verification, None, report, rewritten.renamed)
