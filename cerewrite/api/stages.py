"""Where the stages meet: one function per verb, each calling its stages and nothing else.

Stages are imported when a verb needs them, so that a plan costs no torch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from cerewrite import ir
from cerewrite.api.options import AnalysisOptions, ExportOptions, PlanOptions, check_options
from cerewrite.errors import UsageError
from cerewrite.frontend.loading import describe_inputs
from cerewrite.planning.budgets import TRAINING_BATCH
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.initialisers import Custom
    from cerewrite.rewriting import Pass

PathLike = str | os.PathLike[str]


def analyze(
    model: nn.Module,
    example_inputs: object = None,
    *,
    clock: Clock | None = None,
    latency_batch: int | None = None,
    memory_batch: int | None = TRAINING_BATCH,
    step_batch: int | None = None,
    **options: Unpack[AnalysisOptions],
) -> ir.Analysis:
    """Trace a model and compute the finite-width correction of every layer.

    Args:
        model: any module; its parameters may be on the meta device. `DataParallel`,
            `DistributedDataParallel` and ``torch.compile`` are taken off first.
        example_inputs: a tensor, a tuple of positional inputs or a dict of keyword inputs, batch
            first.
        clock: times the stages.
        latency_batch: time the model and its layers at this batch size on this machine, which a
            latency budget needs; see `cerewrite.timing.profile`.
        memory_batch: training batch at which the memory of a step is counted, 32 by default;
            None for not at all; see `cerewrite.analysis.keep`.
        step_batch: time training steps of the model and its layers at this batch size, which
            holds or limits them in a plan; see `cerewrite.timing.profile_step`.
        options: ``estimator`` (a registered one, "auto"), ``parametrization`` ("ntk" or
            "standard"), ``gain`` ("as-built", "nonzero", "he" or a number), ``scope`` ("block",
            "stage", "network" or "auto"; see `cerewrite.analysis.find_regions`); and for
            estimators that measure ``draws``, ``seconds`` (20), ``seed``, ``precision``,
            ``readout``, ``norms``, ``redraw``, ``executor``, ``progress`` (see
            `cerewrite.estimators.Assumption`).

    Raises:
        TraceError: if the model cannot be traced.
        AnalysisError: if the estimator cannot make its estimate.
        UsageError: if an option names no choice.
        UnknownOptionError: if there is no such option.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> found = analyze(net, torch.randn(2, 64), draws=16)  # 16 draws; 20 s by default
        >>> [region.region.sizes for region in found.regions]
        [(64, 64, 64)]
    """
    from cerewrite import analysis
    from cerewrite.frontend import tracing
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.modes import buffers_kept
    from cerewrite.runtime.untie import untie

    check_options(analyze, options, AnalysisOptions)
    model = unwrap(model)
    model, untied = untie(model) if options.pop("untie", False) else (model, ())
    with alone(), buffers_kept(model):
        clock = clock or Clock()
        inputs = as_arguments(example_inputs)
        with clock("trace"):
            traced = tracing.trace(model, inputs)
        assert inputs is not None, "a trace refuses no inputs"
        with clock("analyse"):
            analysed = analysis.analyze(traced, model, inputs, **options)  # type: ignore[misc]
            shapes = tuple(map(str, describe_inputs(inputs) or ()))
            analysed = replace(analysed, inputs=shapes, untied=untied)
        if memory_batch is not None:
            analysed = analysis.keep(analysed, traced, model, batch=memory_batch)
        if latency_batch is None and step_batch is None:
            return analysed
        from cerewrite import timing

        with clock("profile"):
            if latency_batch is not None:
                analysed = timing.profile(analysed, traced, model, inputs, batch=latency_batch)
            if step_batch is not None:
                analysed = timing.profile_step(analysed, traced, model, inputs, batch=step_batch)
        return analysed


def plan(
    analysis: ir.Analysis, *, scope: str | None = None, **options: Unpack[PlanOptions]
) -> ir.Plan:
    """Choose members and widths for every region; see `cerewrite.planning.make_plan`.

    Args:
        analysis: what `analyze` returned.
        scope: the analysis's own, if given; of an ``auto`` analysis, one scope of it. Without,
            an ``auto`` analysis's scopes are compared, and the plan says how (`Plan.scopes`).
        options: ``budget`` ("params", "params=0.5x", "flops=1.2G"; several hold together),
            ``allow`` ("all", "step", "flops=2x": what may exceed the original's; every cost that no
            budget names is held there),
            ``objective`` ("primal": least measure within the budget; "dual": least cost at an
            equal one), ``measure`` ("log-variance", "sign-variance", "nu", "leading-order"),
            ``include`` and ``exclude`` (rules), ``min_width`` (4, or the original's where that is
            less), ``max_multiplicity``, ``channel_multiple``, ``widths`` ("proportional", "free"),
            ``min_gain`` (0.02), ``uniform``, ``fixed`` (designs by hand, by region),
            ``keep_groups``, ``seed``, ``init`` (how weights are drawn),
            ``exit_scale`` ("folded", "explicit", "mean"),
            ``weights`` ("reinitialise", "transfer"), ``members`` (so many members that can be
            asked one by one, or "auto"; scope "network").

    Raises:
        UsageError: if a budget, rule or constraint cannot be read.
        UnknownOptionError: if there is no such option.
        InfeasibleBudgetError: if no design meets the budget; the message gives the range.
        PlanError: if there is no region to split.
    """
    from cerewrite import planning

    check_options(plan, options, PlanOptions)
    if analysis.scopes and scope in (None, analysis.scope):
        return planning.compare_scopes(analysis, **options)
    if scope in {item.scope for item in analysis.scopes}:
        assert scope is not None
        return planning.make_plan(analysis.at_scope(scope), **options)
    if scope not in (None, analysis.scope):
        raise UsageError(
            f"scope '{scope}' was asked for, the analysis was made at scope '{analysis.scope}'",
            advice=f"analyze again with scope='{scope}'",
        )
    return planning.make_plan(analysis, **options)


def apply(
    plan: ir.Plan,
    model: nn.Module,
    *,
    inplace: bool = False,
    init: str | Custom | None = None,
    calibration: object = None,
    max_params: int | None = None,
) -> nn.Module:
    """The rewritten model; the members' weights are drawn anew, all others are kept.

    Args:
        plan: what to do.
        model: the model it was made for; left as it is unless ``inplace``. The result of a
            wrapped one is bare: wrap it again.
        inplace: whether to change the model itself; after a failure it is as it was.
        init: an initialiser, or a function ``f(weight)`` that fills the weight
            ``[out, in / groups, *kernel]`` of one member's layer in place, such as those of
            ``torch.nn.init``; instead of the plan's.
        calibration: for a plan whose weights are transferred, one batch of inputs on which the
            members are fitted; without it the original's weights are copied as they are.
        max_params: most parameters that the result may have; 4 times the model's if not given.

    Raises:
        PlanError: if a split of the plan breaks a rule, or the plan would build too much; its
            figures are counted anew.
        StalePlanError: if the plan belongs to another model, or one has been applied already.
        RewriteError: if a pass fails, or the plan names a user's function, which was not given.
    """
    from cerewrite import planning, rewriting

    with alone():
        plan = planning.recount(plan, max_params=max_params)
        passes = passes_for(init, as_arguments(calibration))
        return rewriting.rewrite(plan, model, inplace=inplace, passes=passes).model


def passes_for(init: str | Custom | None = None, calibration: object = None) -> tuple[Pass, ...]:
    """The default passes, with these options."""
    from cerewrite import rewriting
    from passes.reinitialise import Reinitialise
    from passes.transfer_weights import TransferWeights

    return rewriting.default_passes_with(Reinitialise(init), TransferWeights(calibration))


def revert(model: nn.Module) -> nn.Module:
    """Turn a rewritten model back into its original, in place, and return it.

    Raises:
        RewriteError: if the model is not a rewritten one.
    """
    from cerewrite import rewriting
    from cerewrite.frontend.unwrapping import unwrap

    with alone():
        return rewriting.revert(unwrap(model))


def verify(
    original: nn.Module, rewritten: nn.Module, plan: ir.Plan, example_inputs: object
) -> ir.Verification:
    """Check a rewritten model: signature, budget, membership, gradients; all results are kept.

    Args:
        original: the model before.
        rewritten: the model after.
        plan: the plan that was applied.
        example_inputs: as for `analyze`.
    """
    from cerewrite import verifier
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.modes import buffers_kept

    original, rewritten = unwrap(original), unwrap(rewritten)
    with alone(), buffers_kept(original, rewritten):
        return verifier.verify(original, rewritten, plan, as_inputs(example_inputs))


def export_onnx(
    model: nn.Module,
    path: PathLike,
    example_inputs: object = None,
    *,
    overwrite: bool = True,
    **options: Unpack[ExportOptions],
) -> ir.Export:
    """Write an ONNX file and prove it in ONNX Runtime; see `cerewrite.exporter.export_onnx`.

    Args:
        model: any module.
        path: file to write.
        example_inputs: as for `analyze`; for a rewritten model, without any, drawn to the shapes
            that its plan was made on.
        overwrite: whether a file at ``path`` may be replaced.
        options: ``opset`` (20) and further options of the exporter.

    Raises:
        ExportError: if the file cannot be written, read back or matched.
        UsageError: if no inputs are given and none can be drawn.
    """
    from cerewrite import exporter, rewriting
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.modes import buffers_kept

    check_options(export_onnx, options, ExportOptions)
    model = unwrap(model)
    with alone(), buffers_kept(model):
        inputs = as_arguments(example_inputs)
        if inputs is None:
            inputs = rewriting.draw_inputs(model)
        return exporter.export_onnx(model, path, inputs, overwrite=overwrite, **options)


def as_arguments(example_inputs: object) -> ir.Inputs | None:
    """Example inputs as a tuple or a dict, if there are any."""
    return None if example_inputs is None else as_inputs(example_inputs)


def as_inputs(example_inputs: object) -> ir.Inputs:
    """Example inputs as a tuple or a dict; a single tensor is a tuple of one.

    Raises:
        UsageError: if there are none.
    """
    if example_inputs is None:
        raise UsageError(
            "no example inputs were given", advice="pass a tensor, a tuple or a dict of tensors"
        )
    if isinstance(example_inputs, tuple | dict):
        return example_inputs
    return tuple(example_inputs) if isinstance(example_inputs, list) else (example_inputs,)
