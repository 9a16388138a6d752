"""The closed form with spatial factors from the given inputs (docs/theory.md, section 28)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import AnalysisError
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.base import Assumption, Corrections, Estimator, register
from cerewrite.estimators.maps.influence import reached, spatial_kappas
from cerewrite.estimators.maps.stem import examples_of
from cerewrite.ir import TracedModel


@register
class Spatial(Estimator):
    """The closed form, with rho from the second moments of the inputs between positions.

    Layers' shares and moments are those of `Analytic`; rho is what the layer's width class does
    to log K on the given inputs, over what it does on spatially constant maps. It holds what
    maps do to the shares as well, padding at borders included, so that it may pass 1.
    """

    name = "spatial"
    reference = "docs/theory.md 4 to 6"

    @override
    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if the inputs are not one batch of maps with finite values, an operator
                has no rule for maps, or maps have too many positions.
        """
        maps = _maps(example_inputs)
        closed = Analytic().estimate(traced, model, None, assumption)
        needed = reached(traced)
        classes = spatial_kappas(traced, model, maps, assumption)
        widths = {layer.name: layer.out_channels for layer in traced.layers}
        units = {layer.layer: layer.kappa * widths[layer.layer] for layer in closed.layers}
        factors: dict[str, float] = {}
        for names, kappa in classes:
            flat = sum(units[name] for name in names)
            factors |= dict.fromkeys(names, kappa / flat if flat > 0 else 1.0)
        layers = tuple(
            replace(at, rho=rho, kappa=at.kappa * rho)
            if layer.node in needed
            else replace(at, kappa=0.0, note="refused: the output does not depend on it")
            for at, layer in zip(closed.layers, traced.layers, strict=True)
            for rho in [factors.get(at.layer, 1.0)]
        )
        seen = examples_of(traced, maps, running=assumption.norms == "eval")
        whose = "these examples alone" if assumption.norms == "train" else "running statistics"
        return Corrections(
            layers=layers,
            nu=None,
            assumptions=(
                f"rho from the given inputs, scaled to mean square 1: second moments between all "
                f"positions of {seen} example{'s' if seen > 1 else ''}; K is the first's",
                f"fields are Gaussian in front of activations; batch norms see {whose}",
                "maxima by sampled fields, their derivatives those of averages; shifts as if "
                "all units were alike",
                "K is that of any channel of the first output: all are alike in this limit",
                f"Var[log K] by one unit over drawn fields, seed {assumption.seed}: 5 % or so",
            ),
        )


def _maps(inputs: Any) -> Tensor:
    """The one batch of maps among the inputs."""
    found: Any = inputs
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, Sequence) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor) or found.is_meta or found.dim() not in (3, 4):
        raise AnalysisError(
            "the spatial factor needs one batch of maps, [examples, channels, *positions]",
            advice="give example inputs, or use --estimator analytic (rho = 1)",
        )
    if not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        raise AnalysisError(
            "the example inputs are not finite floating-point numbers", advice="check the data"
        )
    if not bool(found[:1].any()):
        raise AnalysisError("the first example input is zero", advice="give a real one")
    return found.detach().cpu()
