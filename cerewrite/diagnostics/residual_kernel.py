"""nu with depth, against the vanilla twin."""

from __future__ import annotations

import math
from itertools import accumulate

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.ours import closed_form
from cerewrite.estimators.exact_relu import exact_relu_nu


@register
class ResidualKernel(Diagnostic):
    """What sums and concatenations do to nu: the model against a plain chain of its layers."""

    name = "residual-kernel"
    title = "nu with depth against the vanilla twin"
    formula = (
        "nu of the model, prod_l (1 + kappa_l) - 1 up to each layer, over nu of the ReLU chain "
        "of the same layers' widths without sums and concatenations (docs/theory.md, section 3)"
    )
    source = "Littwin, Galanti & Wolf, On Random Kernels of Residual Architectures (2001.10460)"
    caveats = (
        "The twin is a dense ReLU chain, whatever the model's activations, kernels and groups.",
        "The model's side is the closed form of kernel-measures.",
    )
    needs = "structure"
    drawn = False

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        found = closed_form(material)
        widths = [layer.width for layer in found.layers][:-1]
        if not widths:
            raise NotApplicableError("one layer alone", advice="give a model with a hidden layer")
        twin, nu = exact_relu_nu(widths), found.measures.nu.value
        sums = accumulate(math.log1p(layer.kappa) for layer in found.layers)
        return Reading(
            {"nu over twin's": nu / twin, "nu": nu, "twin's nu": twin},
            {
                "nu": {
                    layer.name: math.expm1(total)
                    for layer, total in zip(found.layers, sums, strict=True)
                },
                "twin's nu": {
                    layer.name: exact_relu_nu(widths[: index + 1])
                    for index, layer in enumerate(found.layers[:-1])
                },
            },
        )
