"""ZiCo: the inverse coefficient of variation of the gradients."""

from __future__ import annotations

import math

import torch

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material


@register
class ZiCo(Diagnostic):
    """Zero-shot score from mean and spread of gradients over two halves of the batch."""

    name = "zico"
    title = "ZiCo"
    formula = (
        "sum over layers l of log sum over weights w in l of mean_b |g_w,b| / std_b g_w,b, "
        "b the two halves of the batch, std without Bessel's correction"
    )
    source = "Li et al., ZiCo (2301.11300), and the authors' code"
    caveats = (
        "It grows with every layer and every weight: it is mostly a count.",
        "Weights whose gradient does not change between the halves are left out.",
    )
    least = 2
    higher_is_better = frozenset({"score"})

    def cost(self, material: Material) -> Passes:
        """Every half is run once."""
        return Passes(1, 1)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        middle = material.batch // 2
        halves = (material.part(0, middle), material.part(middle, material.batch))
        found = [half.gradient(half.loss_of(half.run())) for half in halves]
        layers = {}
        for layer, weight in material.layer_weights().items():
            pair = torch.stack([gradient[weight].flatten() for gradient in found])
            spread = pair.std(0, unbiased=False)
            ratio = (pair.abs().mean(0) / spread)[spread > 0]
            if float(total := ratio.double().sum()) > 0:
                layers[layer] = math.log(float(total))
        if not layers:
            raise NotApplicableError(
                "no linear or convolution module has gradients that differ between halves",
                advice="give a batch of different examples",
            )
        return Reading({"score": sum(layers.values())}, {"score": layers})
