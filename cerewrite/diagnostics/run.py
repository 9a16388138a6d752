"""All diagnostics of one model, over draws of its weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase

from cerewrite.diagnostics.base import DIAGNOSTICS, Diagnostic, Reading
from cerewrite.diagnostics.material import (
    Loss,
    Material,
    batch_size,
    default_loss,
    float_outputs_or_first,
)
from cerewrite.diagnostics.worth import worth_of
from cerewrite.errors import AnalysisError, UsageError
from cerewrite.estimators.draws.subject import Subject, make_subject
from cerewrite.ir import LARGEST_SEED, Inputs, Rejection, TracedModel
from cerewrite.ir.diagnosed import DATA, DRAWS, Diagnosis, Figure, Finding, LayerFigure
from cerewrite.registry import require_whole
from cerewrite.runtime.alone import alone
from cerewrite.runtime.trees import map_tensors

MOST_DRAWS = 10_000


def diagnose(
    traced: TracedModel,
    model: nn.Module,
    inputs: Inputs,
    *,
    targets: Any = None,
    loss: Loss | None = None,
    data: str = "given",
    draws: int = DRAWS,
    seed: int = 0,
    only: Iterable[str] = (),
) -> Diagnosis:
    """Every registered diagnostic of a model; see `cerewrite.diagnose`.

    Raises:
        UsageError: if an option, the targets or the loss make no sense.
        AnalysisError: if the model cannot be copied or raises.
    """
    require_whole("seed", seed, 0, LARGEST_SEED)
    require_whole("draws", draws, 0, MOST_DRAWS)
    if data not in DATA:
        raise UsageError(f"unknown data '{data}'", advice=f"choose from: {', '.join(DATA)}")
    asked = list(dict.fromkeys(only)) or list(DIAGNOSTICS)
    chosen = [DIAGNOSTICS[name] for name in asked]
    # Fused attention has no second derivative.
    with alone(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        stays = None if draws else _as_it_stands
        subject = make_subject(traced, model, inputs, seed=seed, redraw=stays)
        material = _material(subject, traced, inputs, targets, loss, data, seed)
        findings, gaps = _read(subject, material, chosen, data, draws)
    return Diagnosis(
        model=traced.name,
        params=traced.params,
        data=data,
        examples=material.batch,
        labelled=material.loss is not None,
        draws=draws,
        seed=seed,
        findings=findings,
        gaps=gaps,
    )


def _as_it_stands(model: nn.Module, generator: torch.Generator) -> None:
    """In the place of a draw, where the weights are looked at as they are."""


def _material(
    subject: Subject,
    traced: TracedModel,
    inputs: Inputs,
    targets: Any,
    loss: Loss | None,
    data: str,
    seed: int,
) -> Material:
    """A private copy of the model with its batch; Gaussian inputs and labels where asked for."""
    for module in subject.model.modules():
        if isinstance(module, _NormBase):
            module.momentum = 0.0  # running statistics stay
    batch = batch_size(inputs)
    if data == "gaussian":
        generator = torch.Generator().manual_seed(seed)
        inputs = _gaussian(inputs, generator)
    labelled = data != "shapes" and (targets is not None or loss is not None)
    material = Material(subject.model, traced, inputs, targets, loss or default_loss, batch, seed)
    if data == "gaussian" and targets is None and loss is None:
        targets, labelled = _labels(material, generator), True
    if labelled:
        _check_targets(targets, batch)
    return replace(material, targets=targets, loss=material.loss if labelled else None)


def _gaussian(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Standard normal values in the place of every floating-point input."""

    def drawn(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        return torch.randn(leaf.shape, generator=generator).to(leaf)

    filled: Inputs = map_tensors(drawn, inputs)
    return filled


def _labels(material: Material, generator: torch.Generator) -> Tensor:
    """Classes drawn uniformly, one per example and position."""
    with torch.no_grad():
        output = float_outputs_or_first(material.run())
    if output.dim() < 2 or output.shape[1] < 2:
        return torch.randn(output.shape, generator=generator).to(output.device)
    shape = (output.shape[0], *output.shape[2:])
    return torch.randint(output.shape[1], shape, generator=generator).to(output.device)


def _check_targets(targets: Any, batch: int) -> None:
    if isinstance(targets, Tensor) and (targets.dim() == 0 or targets.shape[0] != batch):
        raise UsageError(
            f"targets {[*targets.shape]} for {batch} examples",
            advice="give one target per example, batch first",
        )


def _read(
    subject: Subject, material: Material, chosen: Sequence[Diagnostic], data: str, draws: int
) -> tuple[tuple[Finding, ...], tuple[Rejection, ...]]:
    """Readings of every diagnostic, draw by draw."""
    gaps = {one.name: gap for one in chosen if (gap := _missing(one, material, data))}
    readings: dict[str, list[Reading]] = {}
    seconds: dict[str, float] = {}
    if data != "shapes":
        _try(material, any(one.needs == "targets" for one in chosen))
    for index in range(max(draws, 1)):
        if draws:
            subject.redraw(index)
        for one in chosen:
            if one.name in gaps or (index and not one.drawn):
                continue
            start = time.perf_counter()
            try:
                readings.setdefault(one.name, []).append(one.read(material))
            except AnalysisError as error:  # of its own run: on fewer examples, other weights
                gaps[one.name] = _gap(one, error.message, error.advice)
            seconds[one.name] = seconds.get(one.name, 0.0) + time.perf_counter() - start
    findings = tuple(
        _finding(one, material, readings[one.name], seconds[one.name], draws)
        for one in chosen
        if one.name not in gaps
    )
    return findings, tuple(gaps[one.name] for one in chosen if one.name in gaps)


def _try(material: Material, wanted: bool) -> None:
    """One run, so that what the user's forward or loss raises is said once."""
    labelled = wanted and material.loss is not None
    with torch.set_grad_enabled(labelled):
        outputs = material.run()
        if labelled:
            material.loss_of(outputs)


def _missing(one: Diagnostic, material: Material, data: str) -> Rejection | None:
    """What a diagnostic needs and was not given."""
    if one.needs != "structure" and data == "shapes":
        return _gap(
            one,
            f"it needs {'inputs and targets' if one.needs == 'targets' else 'inputs'}, and only "
            "shapes were given",
            "give data (--data module:function), or ask for Gaussian inputs (--gaussian)",
        )
    if one.needs == "targets" and material.loss is None:
        return _gap(one, "it needs a loss, and no targets were given", "give targets, or a loss")
    if one.needs != "structure" and material.batch < one.least:
        return _gap(
            one,
            f"it needs {one.least} examples, and the batch has {material.batch}",
            f"give a batch of {one.least} or more",
        )
    return None


def _gap(one: Diagnostic, reason: str, advice: str) -> Rejection:
    return Rejection(one.name, "not-diagnosed", reason, advice)


def _finding(
    one: Diagnostic, material: Material, readings: list[Reading], seconds: float, draws: int
) -> Finding:
    cost = one.cost(material)
    figures = []
    for name in dict.fromkeys(name for reading in readings for name in reading.figures):
        value, error = _mean([r.figures.get(name, math.nan) for r in readings])
        layers = dict.fromkeys(key for r in readings for key in r.layers.get(name, {}))
        each = tuple(
            LayerFigure(
                layer, *_mean([r.layers.get(name, {}).get(layer, math.nan) for r in readings])
            )
            for layer in layers
        )
        figures.append(Figure(name, value, error, each))
    return Finding(
        diagnostic=one.name,
        title=one.title,
        formula=one.formula,
        source=one.source,
        caveats=one.caveats,
        figures=tuple(figures),
        forward=cost.forward,
        backward=cost.backward,
        seconds=seconds,
        draws=draws if one.drawn else 0,
        notes=tuple(dict.fromkeys(note for r in readings for note in r.notes)),
        worth=worth_of(one.name),
    )


def _mean(values: list[float]) -> tuple[float, float | None]:
    """Mean and its standard error over draws; no error of one value."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return (fmean(values) if len(set(values)) > 1 else values[0]), None
    return fmean(values), stdev(values) / math.sqrt(len(values))
