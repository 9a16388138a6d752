"""Kernel or rich: how far the kernel moves in a few steps, and the scale that decides it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.gradient_confusion import inner_products
from cerewrite.diagnostics.gram import gram
from cerewrite.diagnostics.material import Material
from cerewrite.errors import UsageError
from cerewrite.runtime.trees import map_tensors, tensors

STEPS = 4
"""Gradient steps."""

SHARE = 0.1
"""Each step is as long as takes off this share of the loss at first order."""

SCALES = (1.0, 4.0)
"""By which the output is multiplied."""

PROBES = 4
"""Examples whose kernel is looked at, at most."""

FARTHEST = 20.0
"""Logarithm of the scale beyond which nothing is extrapolated."""

MOVED = 0.1
"""Drift at which the kernel counts as moving."""


@register
class KernelDrift(Diagnostic):
    """Drift of the tangent kernel over a few gradient steps, at two scales of the output."""

    name = "kernel-drift"
    title = "kernel or rich"
    formula = (
        f"|K_t - K_0| / |K_0| after {STEPS} steps on L(a (f - f_0) + f_0), each of length "
        f"{SHARE:g} L / |g|^2 along -g, at a = 1 and {SCALES[1]:g}; the a at which it is {MOVED:g}"
    )
    source = (
        "Chizat & Bach, On Lazy Training (1812.07956); Woodworth et al., Kernel and "
        "Rich Regimes (2002.09277)"
    )
    caveats = (
        f"A few steps only, on at most {PROBES} probes: a training's own drift is larger.",
        "The scale is extrapolated with the measured power law between the two scales.",
    )
    least = 2

    def cost(self, material: Material) -> Passes:
        """Two kernels and the steps, per scale; the kernel at the start is taken once."""
        probes = min(PROBES, material.batch)
        share = probes / material.batch
        kernels, runs = 1 + len(SCALES), STEPS * len(SCALES)
        rows = share * probes + probes * inner_products(material, probes)
        return Passes(kernels * share + runs, kernels * rows + runs)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        probes = material.part(0, min(PROBES, material.batch))
        try:
            start = gram(material.model, probes.inputs, material.seed)
        except UsageError as error:  # the model takes no smaller batch
            raise NotApplicableError(error.message, advice=error.advice) from error
        norm = float(start.norm())
        if not 0 < norm < math.inf:
            raise NotApplicableError(
                f"the kernel has norm {norm:g}", advice="check for zero-initialised heads"
            )
        drifts = [
            float((_after_steps(material, probes, scale) - start).norm()) / norm for scale in SCALES
        ]
        power = math.nan
        if min(drifts) > 0:
            power = math.log(drifts[1] / drifts[0]) / math.log(SCALES[1] / SCALES[0])
        # a^power drift = MOVED; a flat power law reaches no scale worth a number.
        reach = math.log(MOVED / drifts[0]) / power if power < 0 else math.nan
        lazy = math.exp(reach) if abs(reach) < FARTHEST else math.nan
        return Reading(
            {
                "drift": drifts[0],
                f"drift at scale {SCALES[1]:g}": drifts[1],
                "power": power,
                f"scale of drift {MOVED:g}": lazy,
            }
        )


def _after_steps(material: Material, probes: Material, scale: float) -> Tensor:
    """The kernel after the steps; the weights are put back."""
    own = material.parameters()
    kept = {name: p.detach().clone() for name, p in own.items()}
    first: list[Tensor] = []
    try:
        for _ in range(STEPS):
            loss = material.loss_of(_scaled(material.run(), scale, first))
            gradient = material.gradient(loss)
            square = sum(float(g.double().square().sum()) for g in gradient.values())
            if square == 0:
                break
            length = SHARE * float(loss.detach()) / square
            with torch.no_grad():
                for name, p in own.items():
                    p.sub_(gradient[name], alpha=length)
        return gram(material.model, probes.inputs, material.seed)
    finally:
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(kept[name])


def _scaled(outputs: Any, scale: float, first: list[Tensor]) -> Any:
    """Outputs whose change since the first call is multiplied."""
    if not first:
        first += [z.detach() for z in tensors(outputs) if z.is_floating_point()]
    starts = iter(first)

    def moved(z: Tensor) -> Tensor:
        if not z.is_floating_point():
            return z
        start = next(starts)
        return start + scale * (z - start)

    return map_tensors(moved, outputs)
