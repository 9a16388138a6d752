"""Assemble an analysis: estimator, regions, composition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Unpack, cast, get_args

from torch import nn

from cerewrite.analysis.calibrate import level_factor, nu_error, nu_level, rescaled
from cerewrite.analysis.existing import existing_members, inflated
from cerewrite.analysis.modules import summarised
from cerewrite.analysis.regions import find_regions
from cerewrite.analysis.scopes import AUTO, SCOPES
from cerewrite.analysis.sites import with_sites
from cerewrite.errors import AnalysisError, UsageError
from cerewrite.estimators import ESTIMATORS, Assumption, Corrections, LayerCorrection
from cerewrite.estimators.auto import closed_form_digits
from cerewrite.estimators.awake import awake
from cerewrite.estimators.base import Measuring, Parametrization
from cerewrite.ir import (
    LARGEST_SEED,
    LARGEST_SIZE,
    Analysis,
    Estimate,
    Inputs,
    Layer,
    LayerEstimate,
    Measures,
    Region,
    RegionEstimate,
    ScopeFindings,
    TracedModel,
)
from cerewrite.planning.measures import region_measures, reported
from cerewrite.registry import require_whole, suggest

AS_BUILT = "as-built"
NONZERO = "nonzero"


def analyze(
    traced: TracedModel,
    model: nn.Module,
    example_inputs: Inputs | None = None,
    *,
    estimator: str = "auto",
    parametrization: str = "ntk",
    gain: str | float = AS_BUILT,
    scope: str = "block",
    **measuring: Unpack[Measuring],
) -> Analysis:
    """Per-layer finite-width corrections of a traced model, its regions and its nu.

    Args:
        traced: the trace of ``model``.
        model: the module; it is only read.
        example_inputs: inputs for estimators that measure.
        estimator: registered estimator.
        parametrization: ``ntk`` or ``standard``.
        gain: ``as-built``; ``nonzero``, as built but for what starts at zero (see
            `cerewrite.estimators.awake`); or fan_in * Var[W] of every layer, as a positive number
            or ``he`` (2), which also wakes scales that start at zero.
        scope: ``block``, ``stage`` or ``network`` (see `find_regions`), or ``auto`` for all of
            them; `cerewrite.plan` then compares them.
        measuring: for estimators that measure: ``draws``, ``seconds``, ``seed``, ``precision``,
            ``readout``, ``norms``, ``redraw``, ``executor``, ``progress`` (see `Assumption`).

    Raises:
        UsageError: on an unknown choice.
        AnalysisError: if the estimator cannot make its estimate.
    """
    if not traced.layers:
        why = next((r for r in traced.rejections if r.code != "earlier-rung"), None)
        raise AnalysisError(
            "the model has no linear or convolution layer"
            + (f" that could be drawn anew: '{why.where}': {why.reason}" if why else ""),
            advice=why.advice if why else "there is nothing to analyse",
        )
    assumption = replace(_assumption(parametrization, gain), **measuring)
    require_whole("seed", assumption.seed, 0, LARGEST_SEED)
    if assumption.draws is not None:
        require_whole("draws", assumption.draws, 1, LARGEST_SIZE)
    if assumption.precision is not None and not 0 < assumption.precision < float("inf"):
        raise UsageError(f"precision is {assumption.precision}", advice="give a positive number")
    check_seconds(assumption.seconds)
    _check_weights(traced, assumption)
    traced, model, woken = (traced, model, "") if gain == AS_BUILT else awake(traced, model)
    if scope not in (*SCOPES, AUTO):
        raise UsageError(
            f"unknown scope '{scope}'", advice=f"choose from: {', '.join((*SCOPES, AUTO))}"
        )
    method = ESTIMATORS[estimator]
    corrections = method.estimate(traced, model, example_inputs, assumption)
    levelled = tuple(
        _at_scope(traced, one, corrections, method.reference, estimator)
        for one in (SCOPES if scope == AUTO else (scope,))
    )
    findings = tuple(found for found, _ in levelled)
    first, factor = levelled[0]
    by_name = {at.layer: _scaled(at, factor) for at in corrections.layers}
    owner = {site.layer: item.name for item in first.regions for site in item.region.sites}
    total = sum(at.kappa for at in by_name.values())
    return Analysis(
        model=traced.name,
        fingerprint=traced.fingerprint,
        estimator=estimator,
        parametrization=parametrization,
        gain=str(gain),
        scope=scope,
        measures=first.measures,
        layers=tuple(_layer(layer, by_name[layer.name], total, owner) for layer in traced.layers),
        regions=first.regions,
        rejections=first.rejections,
        params=traced.params,
        flops=traced.flops,
        frontend=traced.frontend,
        assumptions=(*corrections.assumptions, *([woken] if woken else [])),
        scopes=findings if scope == AUTO else (),
        members=first.members,
        digits=4 if corrections.log_variance or corrections.draws else closed_form_digits(traced),
        modules=summarised(traced, model),
    )


def _at_scope(
    traced: TracedModel, scope: str, corrections: Corrections, reference: str, method: str
) -> tuple[ScopeFindings, float]:
    """Regions, refusals and measures at one scope; the factor that makes them compose.

    What an estimator measures of the whole model is the level of its layers: all corrections
    are multiplied by the factor at which they compose to the measured Var[log K]; what nu is
    beyond that stands in `Region.nu_level` (docs/theory.md, section 31).
    """
    by_name = {correction.layer: correction for correction in corrections.layers}
    bare, rejections = find_regions(traced, scope)
    regions = tuple(with_sites(region, traced, by_name) for region in bare)
    alone = existing_members(traced, regions, scope)
    members = tuple(with_sites(region, traced, by_name) for region in alone)
    owner = {site.layer: region.name for region in (*regions, *members) for site in region.sites}
    rest = [max(c.kappa, 0.0) for c in corrections.layers if c.layer not in owner]
    measured, factor = corrections.log_variance, 1.0
    if measured is not None:
        factor = level_factor(measured.value, (*regions, *members), rest)
        regions = tuple(rescaled(region, factor) for region in regions)
        members = tuple(rescaled(region, factor) for region in members)
    scored = (*regions, *members)
    scaled = replace(corrections, layers=tuple(_scaled(c, factor) for c in corrections.layers))
    composed = _composed(scored, scaled, owner, reference, method)
    nu = corrections.nu
    if nu is not None and corrections.ungrouped:
        nu = replace(nu, value=inflated(nu.value, scored))
    if nu is None and measured is not None and measured.stderr and measured.value > 0:
        error = nu_error(composed.nu.value, measured.value, measured.stderr)
        nu = replace(composed.nu, stderr=error)
    nu = nu or composed.nu
    level = nu_level(nu.value, composed.nu.value)
    regions = tuple(replace(region, nu_level=level) for region in regions)
    findings = ScopeFindings(
        scope=scope,
        measures=replace(composed, nu=nu, log_variance=measured or composed.log_variance),
        regions=tuple(_estimate(region) for region in regions),
        rejections=traced.rejections + rejections,
        members=members,
    )
    return findings, factor


def _scaled(at: LayerCorrection, factor: float) -> LayerCorrection:
    """A correction at another level."""
    stderr = None if at.stderr is None else factor * at.stderr
    return replace(at, rho=factor * at.rho, kappa=factor * at.kappa, stderr=stderr)


def _check_weights(traced: TracedModel, assumption: Assumption) -> None:
    """Refuse gains that would be read from weights which are no numbers."""
    wrong = next((x.name for x in traced.layers if not math.isfinite(x.gain)), None)
    if assumption.gain is None and wrong is not None:
        raise AnalysisError(
            f"the weights of '{wrong}' are not finite",
            advice="build the model anew, or analyse the architecture alone: --gain he",
        )


def check_seconds(seconds: float | None) -> None:
    """Refuse a time limit that is none.

    Raises:
        UsageError: if it is not a finite number above 0.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(
            f"a time limit of {seconds} seconds", advice="give a number above 0, such as 20"
        )


def _assumption(parametrization: str, gain: str | float) -> Assumption:
    known = get_args(Parametrization)
    if parametrization not in known:
        raise UsageError(
            f"unknown parametrization '{parametrization}'",
            advice=suggest(parametrization, dict.fromkeys(known)),
        )
    return Assumption(cast(Parametrization, parametrization), parse_gain(gain))


def parse_gain(gain: str | float) -> float | None:
    """``as-built`` and ``nonzero`` as None, ``he`` as 2, else the number.

    Raises:
        UsageError: if it is neither a word nor a positive number.

    Example:
        >>> parse_gain("he"), parse_gain("as-built"), parse_gain("1.5")
        (2.0, None, 1.5)
    """
    if gain in (AS_BUILT, NONZERO):
        return None
    if gain == "he":
        return 2.0
    try:
        value = float(gain) if str(gain).isascii() else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(
            f"gain '{gain}'", advice="give 'as-built', 'nonzero', 'he' or a positive number"
        )
    return value


def _estimate(region: Region) -> RegionEstimate:
    return RegionEstimate(region.name, region_measures(region, region.design), region)


def _composed(
    regions: tuple[Region, ...],
    corrections: Corrections,
    owner: dict[str, str],
    reference: str,
    method: str,
) -> Measures[Estimate]:
    """The model's measures from its regions and remaining layers (docs/theory.md, section 4).

    Standard errors of the layers add in quadrature, for the sum of kappas and for Var[log K]
    alike, and times ``1 + nu`` for nu.
    """
    rest = [max(c.kappa, 0.0) for c in corrections.layers if c.layer not in owner]
    errors = [c.stderr for c in corrections.layers if c.stderr is not None]
    estimates = []
    for measure in reported():
        scores = [measure.region_score(region.sites, region.design) for region in regions]
        value = measure.compose(scores, rest)
        stderr = math.hypot(*errors) if errors else None
        if stderr is not None and measure.field == "nu":
            stderr *= 1 + value
        estimates.append(Estimate(value, stderr, corrections.draws, method, reference))
    composed = Measures(*estimates)
    if corrections.per_layer:
        return composed
    nothing = Estimate(math.nan, None, 0, method, "no closed form to sum")
    return replace(composed, leading_order=nothing)


def _layer(layer: Layer, at: LayerCorrection, total: float, owner: dict[str, str]) -> LayerEstimate:
    return LayerEstimate(
        name=layer.name,
        width=layer.out_channels,
        kappa=at.kappa,
        kappa_stderr=at.stderr,
        forward_share=at.forward_share,
        backward_share=at.backward_share,
        share=at.kappa / total if total else 0.0,
        v_aa=at.v_aa,
        v_bb=at.v_bb,
        v_ab=at.v_ab,
        rho=at.rho,
        region=owner.get(layer.name),
        params=layer.params,
        flops=layer.flops,
        frontend=layer.frontend,
        note=at.note,
    )
