"""NASWOT: how differently rectifiers cut the examples."""

from __future__ import annotations

import math

import torch

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.tap import RECTIFIERS, watch


@register
class Naswot(Diagnostic):
    """Log-determinant of the kernel of the examples' activation codes."""

    name = "naswot"
    title = "NASWOT"
    formula = "log |det K|, K_ij = N - Hamming(c_i, c_j), c the signs of N rectifiers' inputs"
    source = "Mellor et al., Neural Architecture Search without Training (2006.04647)"
    caveats = (
        "Only rectifiers (ReLU, ReLU6, leaky ReLU, hard tanh) have codes.",
        "Two examples of one code make it minus infinity.",
    )
    needs = "inputs"
    least = 2
    higher_is_better = frozenset({"score"})

    def cost(self, material: Material) -> Passes:
        """One forward pass, and the agreements of all pairs of codes."""
        ops = [op for op in material.traced.ops if op.target.rstrip("_") in RECTIFIERS]
        units = sum(op.numel for op in ops)  # of the whole batch
        return Passes(1 + 4 * units / max(material.traced.flops, 1), 0)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        with torch.no_grad():
            seen = watch(material, joints=False, slopes=False)
        codes = [code for code in seen.codes if len(code) == material.batch]
        if not codes:
            raise NotApplicableError(
                "the model has no rectifier", advice="it is defined for ReLU and its kin"
            )
        kernel = torch.zeros(material.batch, material.batch, dtype=torch.float64)
        for code in codes:
            on = code.reshape(material.batch, -1).double().cpu()
            # Agreements: both on, or both off.
            kernel += on @ on.T + (1 - on) @ (1 - on).T
        sign, value = torch.linalg.slogdet(kernel)
        return Reading({"score": float(value) if float(sign) else -math.inf})
