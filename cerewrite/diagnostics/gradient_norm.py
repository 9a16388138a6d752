"""Norm of the loss's gradient, whole and summed over layers."""

from __future__ import annotations

import torch

from cerewrite.diagnostics.base import Diagnostic, Passes, Reading, register
from cerewrite.diagnostics.material import Material


@register
class GradientNorm(Diagnostic):
    """Euclidean norm of the gradient of the mean loss: one forward, one backward."""

    name = "gradient-norm"
    title = "gradient norm"
    formula = "|g|, and sum over linear and convolution layers of |dL / dW_l|"
    source = "Abdelfattah et al., Zero-Cost Proxies (2101.08134)"
    caveats = ("It scales with the loss and with the read-out's initialisation.",)
    higher_is_better = frozenset({"norm", "sum of layers"})

    def cost(self, material: Material) -> Passes:
        """See `Diagnostic.cost`."""
        return Passes(1, 1)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        gradient = material.gradient(material.loss_of(material.run()))
        norms = {name: float(g.double().norm()) for name, g in gradient.items()}
        layers = {layer: norms[weight] for layer, weight in material.layer_weights().items()}
        whole = float(torch.tensor(list(norms.values()), dtype=torch.float64).norm())
        return Reading(
            {"norm": whole, "sum of layers": sum(layers.values())}, {"sum of layers": layers}
        )
