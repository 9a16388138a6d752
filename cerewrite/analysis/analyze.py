"""Assemble an analysis: estimator, regions, composition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Unpack, cast, get_args

from torch import nn

from cerewrite.analysis.calibrate import level_factor, nu_level, rescaled
from cerewrite.analysis.regions import find_regions
from cerewrite.analysis.scopes import AUTO, SCOPES
from cerewrite.errors import AnalysisError, UsageError
from cerewrite.estimators import ESTIMATORS, Assumption, Corrections, LayerCorrection
from cerewrite.estimators.auto import closed_form_digits
from cerewrite.estimators.base import Measuring, Parametrization
from cerewrite.ir import (
    Analysis,
    Estimate,
    Layer,
    LayerEstimate,
    Region,
    RegionEstimate,
    ScopeFindings,
    Site,
    TracedModel,
)
from cerewrite.planning.measures import MEASURES, REPORTED, region_measures
from cerewrite.registry import suggest


def analyze(
    traced: TracedModel,
    model: nn.Module,
    example_inputs: Any = None,
    *,
    estimator: str = "auto",
    parametrization: str = "ntk",
    gain: str | float = "as-built",
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
        gain: ``as-built``, ``he``, or a positive number: fan_in * Var[W] of every layer.
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
    check_seconds(assumption.seconds)
    _check_weights(traced, assumption)
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
    found = tuple(findings for findings, _ in levelled)
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
        nu=first.nu,
        log_variance=first.log_variance,
        leading_order=first.leading_order,
        layers=tuple(_layer(layer, by_name[layer.name], total, owner) for layer in traced.layers),
        regions=first.regions,
        rejections=first.rejections,
        params=traced.params,
        flops=traced.flops,
        frontend=traced.frontend,
        assumptions=corrections.assumptions,
        scopes=found if scope == AUTO else (),
        digits=4 if corrections.log_variance or corrections.draws else closed_form_digits(traced),
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
    found, rejections = find_regions(traced, scope)
    regions = tuple(_with_sites(region, traced, by_name) for region in found)
    owner = {site.layer: region.name for region in regions for site in region.sites}
    rest = [max(c.kappa, 0.0) for c in corrections.layers if c.layer not in owner]
    measured, factor = corrections.log_variance, 1.0
    if measured is not None:
        factor = level_factor(measured.value, regions, rest)
        regions = tuple(rescaled(region, factor) for region in regions)
    scaled = replace(corrections, layers=tuple(_scaled(c, factor) for c in corrections.layers))
    composed = _composed(regions, scaled, owner, reference, method)
    nu = corrections.nu or composed["nu"]
    level = nu_level(nu.value, composed["nu"].value)
    regions = tuple(replace(region, nu_level=level) for region in regions)
    findings = ScopeFindings(
        scope=scope,
        nu=nu,
        log_variance=measured or composed["log_variance"],
        leading_order=composed["leading_order"],
        regions=tuple(_estimate(region) for region in regions),
        rejections=traced.rejections + rejections,
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
    """``as-built`` as None, ``he`` as 2, else the number.

    Raises:
        UsageError: if it is neither a word nor a positive number.

    Example:
        >>> parse_gain("he"), parse_gain("as-built"), parse_gain("1.5")
        (2.0, None, 1.5)
    """
    if gain == "as-built":
        return None
    if gain == "he":
        return 2.0
    try:
        value = float(gain)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"gain '{gain}'", advice="give 'as-built', 'he' or a positive number")
    return value


def _with_sites(
    region: Region, traced: TracedModel, corrections: dict[str, LayerCorrection]
) -> Region:
    """A region with the places where finite width enters it."""
    index = {name: i for i, name in enumerate(region.classes)}
    sites = []
    for layer in traced.layers:
        if layer.target in index:
            at = corrections[layer.name]
            sites.append(
                Site(
                    layer=layer.name,
                    width=index[layer.target],
                    forward_share=at.forward_share,
                    backward_share=at.backward_share,
                    v_aa=at.v_aa,
                    v_bb=at.v_bb,
                    v_ab=at.v_ab,
                    rho=max(at.rho, 0.0),
                    c_norm=at.c_norm,
                )
            )
    return replace(region, sites=tuple(sites))


def _estimate(region: Region) -> RegionEstimate:
    found = region_measures(region, region.multiplicity, region.widths)
    return RegionEstimate(region.name, found.nu, found.log_variance, found.leading_order, region)


def _composed(
    regions: tuple[Region, ...],
    corrections: Corrections,
    owner: dict[str, str],
    reference: str,
    method: str,
) -> dict[str, Estimate]:
    """The model's measures from its regions and other layers (docs/theory.md, eq. 22), by field.

    Standard errors of the layers add in quadrature, for the sum of kappas and for Var[log K]
    alike, and times ``1 + nu`` for nu.
    """
    rest = [max(c.kappa, 0.0) for c in corrections.layers if c.layer not in owner]
    errors = [c.stderr for c in corrections.layers if c.stderr is not None]
    found = {}
    for measure in (MEASURES[name] for name in REPORTED):
        scores = [measure.region_score(r.sites, r.multiplicity, r.widths) for r in regions]
        value = measure.compose(scores, rest)
        stderr = math.hypot(*errors) if errors else None
        if stderr is not None and measure.field == "nu":
            stderr *= 1 + value
        found[measure.field] = Estimate(value, stderr, corrections.draws, method, reference)
    if not corrections.per_layer:
        found["leading_order"] = Estimate(math.nan, None, 0, method, "no closed form to sum")
    return found


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
