"""Models whose branches or heads start at zero, woken: what counts then is the architecture.

Read-outs of zeros, norms' scales of zeros at the end of residual branches and tiny layer scales
make a start of training easy, and leave the tangent kernel with less than the network has, or
with nothing. An optimiser moves them away from zero within a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.estimators.draws.gaussian import weight_names
from cerewrite.ir import TracedModel
from cerewrite.kernel.moments import VIEWS
from cerewrite.ops import family_of
from cerewrite.ops.norms import NormModule
from cerewrite.ops.own_forwards import filter_settings
from cerewrite.ops.standardised import standardises
from cerewrite.runtime.copies import deep_copy

SMALLEST = 0.01
"""Scales whose largest value is at most this start a branch at zero: ConvNeXt's are 1e-6, CaiT's
1e-5, those of branches that take part from the beginning 0.1 and more."""

GAIN = 2.0
"""``fan_in * Var[W]`` of weights that were zeros: He's."""


_PRODUCTS = ("mul", "imul", "addcmul")


def awake(traced: TracedModel, model: nn.Module) -> tuple[TracedModel, nn.Module, str]:
    """The same model with weights of zeros drawn at He's gain, and scales near zero at 1.

    Args:
        traced: the model's trace.
        model: the model; it stays as it is.

    Returns:
        The trace with those layers' gains, a copy that shares every other tensor, and what was
        changed in words; both as they are and nothing where nothing starts at zero.

    Raises:
        AnalysisError: if a layer's weight cannot be found.

    Example:
        >>> from cerewrite.frontend import tracing
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> _ = nn.init.zeros_(net[1].weight)
        >>> traced, woken, said = awake(tracing.trace(net, (torch.ones(1, 2),)), net)
        >>> traced.layers[1].gain, woken[0].weight is net[0].weight, bool(woken[1].weight.all())
        (2.0, True, True)
        >>> said
        "weights of zeros drawn at He's gain: 1; scales near zero taken as 1: 0"
    """
    known = dict(model.named_parameters())
    stand_ins: dict[int, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for layer in (layer for layer in traced.layers if layer.gain == 0):
        weight = known.get(weight_names(layer, model)[0])
        if weight is not None and layer.fan_in:
            drawn = torch.randn(weight.shape, generator=generator) * math.sqrt(GAIN / layer.fan_in)
            stand_ins[id(weight)] = nn.Parameter(drawn.to(weight), weight.requires_grad)
    weights = len(stand_ins)
    for scale in _scales(traced, model, known):
        stand_ins[id(scale)] = nn.Parameter(torch.ones_like(scale), scale.requires_grad)
    if not stand_ins:
        return traced, model, ""
    said = (
        f"weights of zeros drawn at He's gain: {weights}; "
        f"scales near zero taken as 1: {len(stand_ins) - weights}"
    )
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    layers = (replace(x, gain=GAIN) if x.gain == 0 else x for x in traced.layers)
    return replace(traced, layers=tuple(layers)), deep_copy(model, shared | stand_ins), said


def _scales(
    traced: TracedModel, model: nn.Module, known: Mapping[str, nn.Parameter]
) -> Iterator[nn.Parameter]:
    """Scales of norms and filters, and parameters that multiply a signal, near zero."""
    scales: list[Any] = []
    for module in model.modules():
        if isinstance(family_of(module), NormModule):
            scales.append(getattr(module, "weight", None))
        own = filter_settings(module, 1) if standardises(module) else {}
        scales += [module.get_parameter(name) for name in own]
    ops = {op.name: op for op in traced.ops}
    for op in traced.ops:
        for name in op.inputs[op.target == "addcmul" :] if op.target in _PRODUCTS else ():
            source = ops[name]
            while source.target in VIEWS and source.inputs:
                source = ops[source.inputs[0]]
            if source.target == "parameter":
                scales.append(known.get(source.module))
    for scale in scales:
        if not isinstance(scale, nn.Parameter) or scale.is_meta or not scale.is_floating_point():
            continue
        if scale.numel() and float(scale.detach().abs().max()) <= SMALLEST:
            yield scale
