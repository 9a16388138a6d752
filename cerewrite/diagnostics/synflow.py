"""SynFlow: the flow through the magnitudes of the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material, float_outputs
from cerewrite.runtime.copies import deep_copy
from cerewrite.runtime.trees import map_tensors


@register
class SynFlow(Diagnostic):
    """Synaptic saliency of the absolute network on inputs of ones, in float64."""

    name = "synflow"
    title = "SynFlow"
    formula = (
        "log10 of the sum over linear and convolution weights of |w dR / dw|, R the sum of the "
        "outputs of the network with every parameter and buffer replaced by its absolute value, "
        "on one input of ones, batch norms on their running statistics"
    )
    source = "Tanaka et al., SynFlow (2006.05467), and the authors' code"
    caveats = (
        "It is a product of norms over depth: it follows depth and scale first.",
        "It needs no data; integer inputs stay as they are.",
    )
    needs = "structure"
    higher_is_better = frozenset({"log10 score"})

    def cost(self, material: Material) -> Passes:
        """One example, forward and backward, in float64."""
        return Passes(1 / material.batch, 1 / material.batch)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        scores = saliencies(material)
        total = sum(scores.values())
        if not 0 < total < math.inf:
            raise NotApplicableError(
                f"the flow is {total:g}", advice="analyse at a gain that keeps it in range"
            )
        layers = {k: math.log10(v) if v > 0 else -math.inf for k, v in scores.items()}
        return Reading({"log10 score": math.log10(total)}, {"log10 score": layers})


def saliencies(material: Material) -> dict[str, float]:
    """``sum |w dR / dw|`` of every linear and convolution weight."""
    model = deep_copy(material.model).double().eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *_statistics(model)]:
            tensor.abs_()

    def ones(leaf: Tensor) -> Tensor:
        one = leaf[:1] if leaf.dim() else leaf
        return torch.ones_like(one, dtype=torch.float64) if leaf.is_floating_point() else one

    inputs = map_tensors(ones, material.inputs)
    outputs = float_outputs(replace(material, model=model, inputs=inputs, batch=1).run())
    total = torch.stack([out.sum() for out in outputs]).sum()
    weights = material.layer_weights()
    tensors = [model.get_parameter(weight) for weight in weights.values()]
    found = torch.autograd.grad(total, tensors, allow_unused=True)
    return {
        layer: 0.0 if g is None else float((g * w.detach()).abs().sum())
        for layer, g, w in zip(weights, found, tensors, strict=True)
    }


def _statistics(model: nn.Module) -> list[Tensor]:
    """Running statistics of norms: the authors take their magnitudes too."""
    norms = [m for m in model.modules() if isinstance(m, _NormBase)]
    found = [t for norm in norms for t in (norm.running_mean, norm.running_var)]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]
