"""`convert`: every stage in a row, from a model to a verified and saved ensemble."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Unpack, cast

from cerewrite import ir, output, planning
from cerewrite.api.failed import refuse_failed
from cerewrite.api.held_time import within_time
from cerewrite.api.menu import check_pick, nothing_gained, profiled
from cerewrite.api.options import (
    AnalysisOptions,
    BenchOptions,
    ConvertOptions,
    ExportOptions,
    PlanOptions,
    check_options,
)
from cerewrite.api.promise import hardly_believed, keep_promise
from cerewrite.api.requests import calibration_of, recorded_analysis, request_of
from cerewrite.api.saving import save, versions
from cerewrite.api.speed import timed, timed_budgets
from cerewrite.api.stages import PathLike, analyze, as_arguments, passes_for
from cerewrite.api.zero_branches import planned
from cerewrite.errors import UsageError
from cerewrite.planning.budgets import Allowed, BudgetLike, batches_for, read_requests
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.rewriting import Pass


@dataclasses.dataclass(frozen=True, slots=True)
class Conversion(ir.Shown):
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

    def __repr__(self) -> str:
        """What was made, on one line."""
        file = f", {self.export.path}" if self.export else ""
        return f"Conversion({self.plan!r}, {self.verification!r}{file})"


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
    max_params: int | None = None,
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
        max_params: most parameters that the result may have; if not given, 4 times the model's, or
            a larger budget of parameters that was asked for.
        options: those of `analyze` and `plan`. With ``members`` the scope is ``network``, and the
            result can be asked member by member (`cerewrite.members`).

    Raises:
        UnknownOptionError: if there is no such option.
        CerewriteError: see `analyze`, `plan`, `apply`, `export_onnx` and `save`.
        NothingGainedError: if ``out`` is given and no design is better within the limits, so that
            it would hold a copy of the original; nothing is written then.
        VerificationError: if a check fails; nothing is written then.
        TargetTakenError: if another run holds ``out``, or something appeared there meanwhile.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> result = convert(net, torch.randn(2, 64), allow="step", draws=16)
        >>> result.verification.passed, result.plan.planned.nu < result.plan.baseline.nu
        (True, True)
    """
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.modes import buffers_kept
    from cerewrite.runtime.untie import untie

    if onnx is not False and out is None:
        raise UsageError("ONNX was asked for without a folder to write to", advice="give out")
    clock = clock or Clock()
    model = unwrap(model)
    if options.get("untie") or (plan is not None and plan.untied):
        model, _ = untie(model)
        options["untie"] = True
    inputs = as_arguments(example_inputs)
    batches = (latency_batch, memory_batch, step_batch)
    with contextlib.nullcontext() if out is None else output.claim(out):
        if out is not None:
            output.check_target(out, folder=True, overwrite=overwrite)
        with alone(), buffers_kept(model):
            result = _converted(
                model,
                inputs,
                plan,
                options,
                clock,
                batches,
                bench,
                calibration,
                max_params,
                (profile, pick),
                out is not None and not unchanged,
            )
        if out is None:
            return result
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


def _converted(
    model: nn.Module,
    inputs: ir.Inputs | None,
    plan: ir.Plan | None,
    options: ConvertOptions,
    clock: Clock,
    batches: tuple[int | None, int | None, int | None],
    bench: bool | BenchOptions,
    calibration: object,
    max_params: int | None,
    menu: tuple[PathLike | ir.StepProfile | None, str | None],
    gains: bool,
) -> Conversion:
    """Every stage but the last: nothing is written."""
    analysis_options, plan_options = _divide(options)
    if plan is None and plan_options.get("members") is not None:
        analysis_options.setdefault("scope", "network")
    budget: BudgetLike = "params"
    allow: Allowed = "all"
    if plan is None:
        budget = plan_options["budget"] = read_requests(plan_options.get("budget", "params"))
        allow = plan_options.get("allow", ())
    else:
        analysis_options = cast(AnalysisOptions, {**recorded_analysis(plan), **analysis_options})
    (profile, pick), asked = menu, batches_for(budget, *batches, allow)
    check_pick(pick, plan_options)
    if profile is not None:
        asked["step_batch"] = None

    def analyzed() -> ir.Analysis:
        found = analyze(model, inputs, clock=clock, **asked, **analysis_options)
        return found if profile is None else profiled(found, profile)

    def again() -> ir.Analysis:
        analysis_options["gain"] = "nonzero"
        return analyzed()

    given, replan = plan is not None, PlanOptions()  # a given plan is not made anew
    if plan is not None:
        analysis = analyzed()
    else:
        other = None if "gain" in analysis_options else again
        analysis, plan, replan = planned(analyzed, other, pick, plan_options, clock)
        max_params = max_params or planning.asked_params(plan)
    assert inputs is not None, "a trace refuses no inputs"
    if gains and not plan.splits:
        raise nothing_gained(plan)
    if analysis.scopes:
        analysis = analysis.at_scope(plan.scope)
    init = plan_options.get("init")
    fitted, unseen = calibration_of(plan, calibration, inputs)
    passes = passes_for(init if callable(init) else None, fitted)

    def build(made: ir.Plan, of: ir.Analysis = analysis) -> Conversion:
        return _rewrite(model, made, of, inputs, clock, passes, unseen, max_params)

    result = build(plan)
    drawn = analysis.nu.samples + analysis.leading_order.samples > 0 or hardly_believed(plan)
    subject = (model, inputs, analysis_options)
    if drawn and result.plan.splits:
        result = keep_promise(result, build, subject, replan or None, clock)
    if timed_budgets(plan) and profile is None:
        levelled = partial(build, of=result.analysis)
        result = within_time(result, levelled, model, inputs, replan, clock)
        if drawn and result.plan.splits and result.report.promise is None:  # planned anew
            result = keep_promise(result, build, subject, None, clock)
    if bench is not False:
        request = request_of(result.plan) if given else replan
        timing: BenchOptions = {} if bench is True else bench
        report = timed(
            result.report, model, result.model, inputs, clock=clock, asked=timing, planning=request
        )
        result = dataclasses.replace(result, report=report)
    if gains and not result.plan.splits:
        raise nothing_gained(result.plan)
    return result


def _divide(options: ConvertOptions) -> tuple[AnalysisOptions, PlanOptions]:
    """Which verb takes which option; the seed serves both."""
    check_options(convert, options, ConvertOptions)
    analysis_options = {k: v for k, v in options.items() if k in AnalysisOptions.__annotations__}
    plan_options = {k: v for k, v in options.items() if k in PlanOptions.__annotations__}
    return cast(AnalysisOptions, analysis_options), cast(PlanOptions, plan_options)


def _rewrite(
    model: nn.Module,
    made: ir.Plan,
    analysis: ir.Analysis,
    inputs: ir.Inputs,
    clock: Clock,
    passes: Sequence[Pass],
    unseen: ir.Inputs,
    max_params: int | None,
) -> Conversion:
    """Rewrite, verify, and refuse a model that fails a check."""
    from cerewrite import rewriting, verifier
    from cerewrite.rewriting.members import members

    with clock("rewrite"):
        made = planning.recount(made, max_params=max_params)
        rewritten = rewriting.rewrite(made, model, passes=passes)
        made = dataclasses.replace(made, renamed=rewritten.renamed)
        if made.exit_scale == "mean" and made.splits:
            # refuses by name what lies behind the sum; a shared stem may be allowed later
            members(rewritten.model, inputs, allow_shared=True)
    with clock("verify"):
        verification = verifier.verify(model, rewritten.model, made, inputs)
        if made.weights == "transfer" and made.splits:
            drawing = [item for item in passes if item.name != "transfer_weights"]
            redrawn = rewriting.rewrite(made, model, passes=drawing, keep_original=False)
            check = verifier.check_transfer(model, rewritten.model, redrawn.model, unseen)
            verification = ir.Verification((*verification.checks, check))
    refuse_failed(verification, rewritten.model, made, inputs)
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
