"""Variance constancy: how far units' variances differ between two samples."""

from __future__ import annotations

import torch

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.losses import BETA, SAMPLE, variance_constancy
from cerewrite.runtime.hooking import outputs_of


@register
class VarianceConstancyTerm(Diagnostic):
    """The loss term of `cerewrite.losses.VarianceConstancy` at the start, per layer."""

    name = "variance-constancy"
    title = "variance constancy"
    formula = (
        "mean over units of (1 - s_1^2 / (s_2^2 + beta))^2, s_1^2 and s_2^2 a unit's unbiased "
        f"variances over the first and the last {SAMPLE} examples before the activation, "
        f"beta = {BETA:g}; its mean over layers"
    )
    source = "Littwin & Wolf (1811.08764)"
    caveats = (
        "beta makes it depend on the scale of the units.",
        f"Batches under {2 * SAMPLE} are halved into smaller samples.",
    )
    needs = "inputs"
    least = 4

    def cost(self, material: Material) -> Passes:
        """See `Diagnostic.cost`."""
        return Passes(1, 0)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        sample = min(SAMPLE, material.batch // 2)
        layers = {}
        with torch.no_grad():
            outputs = outputs_of(material.model, list(material.layer_weights()), material.run)
        last = material.traced.layers[-1].name
        for layer, values in outputs.items():
            if layer != last and values.dim() > 1 and len(values) == material.batch:
                linear = isinstance(material.model.get_submodule(layer), torch.nn.Linear)
                moved = values.movedim(-1, 1) if linear else values
                layers[layer] = float(variance_constancy(moved.double(), BETA, sample).mean())
        if not layers:
            raise NotApplicableError(
                "no hidden linear or convolution module keeps the batch in front",
                advice="give a model with hidden layers as modules",
            )
        notes = () if sample == SAMPLE else (f"samples of {sample} examples",)
        return Reading({"mean": sum(layers.values()) / len(layers)}, {"mean": layers}, notes)
