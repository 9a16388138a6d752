"""Gradient confusion: whether examples' gradients point against each other."""

from __future__ import annotations

import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material


@register
class GradientConfusion(Diagnostic):
    """Least inner product and least cosine between the gradients of two examples."""

    name = "gradient-confusion"
    title = "gradient confusion"
    formula = "min over i < j of <g_i, g_j>, and of <g_i, g_j> / (|g_i| |g_j|)"
    source = "Sankararaman et al., Gradient Confusion (1904.06963)"
    caveats = (
        "The least of more pairs is less: compare at equal batches.",
        "Batch norms on the batch's statistics couple the examples.",
    )
    least = 2
    higher_is_better = frozenset({"least cosine", "least inner product", "mean cosine"})

    def cost(self, material: Material) -> Passes:
        """One backward pass of the batch's graph per example, and the inner products."""
        return Passes(1, material.batch * (1 + inner_products(material, material.batch)))

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        layers = {weight: layer for layer, weight in material.layer_weights().items()}
        products = example_products(material)
        whole = torch.stack(list(products.values())).sum(0)
        least, cosine, mean = _least(whole)
        if cosine != cosine:
            raise NotApplicableError(
                "an example has no gradient", advice="check for dead layers, or draw anew"
            )
        each = {layers[n]: _least(gram)[1] for n, gram in products.items() if n in layers}
        return Reading(
            {"least cosine": cosine, "least inner product": least, "mean cosine": mean},
            {"least cosine": each},
        )


def inner_products(material: Material, rows: int) -> float:
    """What all inner products of ``rows`` gradients cost, in backward passes of each."""
    # 2 rows^2 params operations, against rows times 2 batch flops of the backward passes.
    return rows * material.traced.params / (material.batch * max(material.traced.flops, 1))


def example_products(material: Material) -> dict[str, Tensor]:
    """Inner products of the examples' gradients, per parameter, ``[batch, batch]``, float64."""
    losses = list(material.losses(material.run()))
    last = len(losses) - 1
    rows = [
        material.gradient(value, retain_graph=index < last) for index, value in enumerate(losses)
    ]
    found = {}
    for name in list(rows[0]):
        flat = torch.stack([row.pop(name).flatten() for row in rows])
        found[name] = (flat @ flat.T).double()
    return found


def _least(gram: Tensor) -> tuple[float, float, float]:
    """Least inner product, least cosine and mean cosine over pairs; NaN without gradients."""
    norms = gram.diagonal().clamp_min(0).sqrt()
    pairs = torch.triu_indices(len(gram), len(gram), 1)
    products = gram[pairs[0], pairs[1]]
    cosines = products / (norms[pairs[0]] * norms[pairs[1]])
    if not bool(cosines.isfinite().all()):
        return float(products.min()), float("nan"), float("nan")
    return float(products.min()), float(cosines.min()), float(cosines.mean())
