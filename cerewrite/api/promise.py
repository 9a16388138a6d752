"""What a plan promises, held against draws of the model that came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from cerewrite import ir
from cerewrite.api.stages import plan as make_plan
from cerewrite.errors import CerewriteError, VerificationError
from cerewrite.planning.measures import MEASURES
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.api.conversion import Conversion

PAIRS = 512
"""Pairs of draws, at most, where a time limit counts."""
STEPS = 60
"""Bisections of an excess."""
LARGEST = 1e5
"""Excess in channels beyond which none is sought."""


BELIEVED = 20.0
"""How many times smaller a plan may make its measure without having been measured."""


def hardly_believed(plan: ir.Plan) -> bool:
    """Whether a plan promises so much that it is measured, whatever it was estimated by."""
    before, after = plan.baseline.log_variance, plan.planned.log_variance
    return bool(plan.splits) and not before <= BELIEVED * after


def keep_promise(
    first: Conversion,
    build: Callable[[ir.Plan, ir.Analysis], Conversion],
    subject: tuple[nn.Module, Any, Mapping[str, Any]],
    planning: Mapping[str, Any] | None,
    clock: Clock,
) -> Conversion:
    """Measure what the plan promised; where it clearly is not so, plan once more and say it.

    Of the two the one with the smaller measured ratio is taken, the second if that is no clear
    difference.

    Args:
        first: the first plan, carried out.
        build: carries out another one, made from another analysis.
        subject: the original, its inputs, the options of its analysis.
        planning: options of the plan; None for one that was given, which is measured only.
        clock: times the stages.

    Raises:
        VerificationError: if even that is worse than the original, and the plan is our own.
    """
    model, inputs, analysing = subject

    def measured(result: Conversion, plans: int) -> Conversion:
        with clock("measure"):
            promise = measure_promise(result.plan, model, result.model, inputs, analysing)
        return _with_promise(result, replace(promise, plans=plans))

    best = measured(first, 1)
    promise = best.report.promise
    assert promise is not None
    if promise.broken and planning is not None and first.plan.measure != "leading-order":
        with clock("plan"):
            found = with_measured(first.analysis, first.plan, promise.measured)
            wanted = dict(planning)
            if promise.measured < promise.promised:  # nothing narrower than what was drawn
                narrowest = min(min(split.widths) for split in first.plan.splits)
                wanted["min_width"] = max(wanted.get("min_width") or 1, narrowest)
            again = make_plan(found, **cast(Any, wanted))
        second = build(replace(again, note=_told(promise)), found)
        if not second.plan.splits:
            return second
        second = measured(second, 2)
        ratios = [one.report.promise.measured for one in (best, second) if one.report.promise]
        best = second if ratios[1] <= ratios[0] + promise.stderr else best
    promise = best.report.promise
    assert promise is not None
    if promise.worse and planning is not None and first.plan.objective != "dual":
        raise VerificationError(
            f"the rewritten {first.plan.model} is worse than the original: "
            + as_check(promise).detail,
            advice="ask for wider members (--min-width), a narrower --scope, or leave it as it is",
        )
    return best


def _told(promise: ir.Promise) -> str:
    return f"planned anew with what draws showed: {as_check(promise).detail}"


def _with_promise(result: Conversion, promise: ir.Promise) -> Conversion:
    checks = (*result.verification.checks, as_check(promise))
    verification = ir.Verification(checks)
    report = replace(result.report, verification=verification, promise=promise)
    return replace(result, verification=verification, report=report)


def measure_promise(
    plan: ir.Plan,
    original: nn.Module,
    rewritten: nn.Module,
    inputs: Any,
    options: Mapping[str, Any],
) -> ir.Promise:
    """The ratio of the plan's measure, promised and measured on common random numbers.

    Args:
        plan: the plan that was carried out, with at least one split.
        original: the model before.
        rewritten: the model after.
        inputs: a tuple or dict of tensors.
        options: those of the analysis; ``draws`` overrides ``seconds``.
    """
    from cerewrite.estimators import draws as drawing
    from cerewrite.estimators.limited import SECONDS

    name = "nu" if plan.measure == "nu" else "log-variance"
    promise = ir.Promise(name, promised_ratio(plan, name))
    count = options.get("draws")
    seconds = math.inf if count is not None else options.get("seconds") or SECONDS
    try:
        subjects = [_subject(model, inputs, options) for model in (original, rewritten)]
        undrawn = _undrawn(plan, subjects[1])
        if undrawn:
            return replace(promise, refused=f"'{undrawn}' cannot be drawn anew")
        pairs = drawing.paired_kernels(
            subjects[0], subjects[1], draws=count or PAIRS, seconds=seconds
        )
    except CerewriteError as error:
        return replace(promise, refused=error.message)
    alive = [pair for pair in zip(*pairs, strict=True) if min(pair) > 0]
    if len(alive) < drawing.FEWEST_PAIRS:
        why = f"{len(alive)} pairs of draws are too few: give --seconds or --draws more"
        return replace(promise, refused=why)
    ratio = (drawing.nu_ratio if name == "nu" else drawing.log_variance_ratio)(
        *zip(*alive, strict=True)
    )
    return replace(promise, measured=ratio.value, stderr=ratio.stderr, draws=len(alive))


def promised_ratio(plan: ir.Plan, name: str) -> float:
    """Rewritten over original, as planned."""
    stated = MEASURES[name].of
    before, after = stated(plan.baseline.measures), stated(plan.planned.measures)
    return after / before if before > 0 else 1.0


def _subject(model: nn.Module, inputs: Any, options: Mapping[str, Any]) -> Any:
    from cerewrite.analysis.analyze import AS_BUILT, parse_gain
    from cerewrite.estimators import Assumption
    from cerewrite.estimators.awake import awake
    from cerewrite.estimators.monte_carlo import subject_of
    from cerewrite.frontend import tracing

    gain = options.get("gain", AS_BUILT)
    assumption = Assumption(
        parametrization=options.get("parametrization", "ntk"),
        gain=parse_gain(gain),
        seed=options.get("seed", 0),
        readout=options.get("readout", ""),
        norms=options.get("norms", "train"),
        redraw=options.get("redraw"),
    )
    traced = tracing.trace(model, inputs)
    if gain != AS_BUILT:
        traced, model, _ = awake(traced, model)
    return subject_of(traced, model, inputs, assumption)


def _undrawn(plan: ir.Plan, subject: Any) -> str:
    """A layer of a split region whose weight no draw reaches, if there is one."""
    drawn = {draw.parameter.rpartition(".")[0] for draw in subject.draws}
    drawn |= {draw.parameter for draw in subject.draws}
    layers = [layer.name.partition("@")[0] for region in plan.regions for layer in region.layers]
    if subject.custom is not None:
        return ""
    return next(
        (
            name
            for name in layers
            if not any(one == name or one.startswith(f"{name}.") for one in drawn)
        ),
        "",
    )


def as_check(promise: ir.Promise) -> ir.Check:
    """The verification's line: it fails where the model is worse than the original."""
    if promise.refused:
        return ir.Check("promise", True, f"not measured: {promise.refused}")
    return ir.Check(
        "promise",
        not promise.worse,
        f"{MEASURES[promise.measure].title} promised at {promise.promised:.3f}x, measured "
        f"{promise.measured:.3f} +- {promise.stderr:.3f}x ({promise.draws} pairs of draws)",
        promise.measured,
        promise.promised,
    )


def with_measured(analysis: ir.Analysis, plan: ir.Plan, measured: float) -> ir.Analysis:
    """The analysis with what draws showed of narrow members: the excess of every site.

    The excess is the one at which the plan's own designs are forecast to have what was measured.

    Args:
        analysis: what the plan was made of.
        plan: the plan that was carried out.
        measured: the measured ratio of its measure, rewritten over original.
    """
    from cerewrite.planning import planned_figures

    name = "nu" if plan.measure == "nu" else "log-variance"

    def forecast(excess: float) -> float:
        found = _with_excess(analysis, excess)
        splits = [_remeasured(split, found) for split in plan.splits]
        stated = MEASURES[name].of
        figures = planned_figures(found, splits)
        return stated(figures.measures) / stated(plan.baseline.measures)

    narrowest = min(min(split.widths) for split in plan.splits)
    low, high = -10.0 * narrowest, LARGEST
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if forecast(middle) < measured:
            low = middle
        else:
            high = middle
    return _with_excess(analysis, 0.5 * (low + high))


def _with_excess(analysis: ir.Analysis, excess: float) -> ir.Analysis:
    def changed(entry: ir.RegionEstimate) -> ir.RegionEstimate:
        region = entry.region
        sites = tuple(
            replace(site, excess=excess, own=region.widths[site.width]) for site in region.sites
        )
        return replace(entry, region=replace(region, sites=sites))

    return replace(analysis, regions=tuple(map(changed, analysis.regions)))


def _remeasured(split: ir.Split, analysis: ir.Analysis) -> ir.Split:
    from cerewrite.planning.measures import region_measures

    region = next(entry.region for entry in analysis.regions if entry.name == split.region)
    return replace(split, measures=region_measures(region, split.design))
