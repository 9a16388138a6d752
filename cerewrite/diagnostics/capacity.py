"""Capacity: bits of layered threshold networks."""

from __future__ import annotations

from cerewrite.diagnostics.base import Diagnostic, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.planning.budgets.capacity import model_bits


@register
class Capacity(Diagnostic):
    """How many functions the architecture can tell apart, in bits, were its units thresholds."""

    name = "capacity"
    title = "capacity"
    formula = "sum_k min(n_1, ..., n_k) n_k n_{k+1}, n_1 the inputs; and per parameter"
    source = "Baldi & Vershynin, The capacity of feedforward neural networks (1901.00434)"
    caveats = (
        "An order of magnitude for threshold units; smooth units store more.",
        "A convolution counts as a dense layer on one patch; sums add the bits of their parts.",
    )
    needs = "structure"
    drawn = False
    higher_is_better = frozenset({"bits", "bits per parameter"})

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        bits = model_bits(material.traced.layers)
        total = sum(bits.values())
        return Reading(
            {"bits": float(total), "bits per parameter": total / max(material.traced.params, 1)},
            {"bits": {name: float(value) for name, value in bits.items()}},
        )
