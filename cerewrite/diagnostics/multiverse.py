"""Multiverse: whether several heads on the same features are orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.tap import watch
from cerewrite.nn import MultiverseHead


@register
class Multiverse(Diagnostic):
    """Cosines between the weights that several heads have for the same class."""

    name = "multiverse"
    title = "orthogonality of heads"
    formula = (
        "mean and largest over classes c and pairs of heads g < h of |cos(f_cg, f_ch)|; and the "
        "loss term, sum of |f_cg . f_ch|"
    )
    source = "Littwin & Wolf, The Multiverse Loss (1511.09033)"
    caveats = (
        "Heads are `MultiverseHead`s, or linear modules of one shape that read one tensor last.",
    )
    needs = "inputs"

    def cost(self, material: Material) -> Passes:
        """See `Diagnostic.cost`."""
        return Passes(1, 0)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        sets = head_weights(material)
        if not sets:
            raise NotApplicableError(
                "the model has one head",
                advice="cerewrite.nn.MultiverseHead gives it several that are orthogonal",
            )
        cosines, products = {}, 0.0
        for name, weights in sets.items():
            gram = torch.einsum("gcf,hcf->cgh", weights, weights)
            first, second = torch.triu_indices(len(weights), len(weights), 1)
            norms = gram.diagonal(dim1=1, dim2=2).sqrt()
            pairs = gram[:, first, second].abs()
            cosines[name] = pairs / (norms[:, first] * norms[:, second])
            products += float(pairs.sum())
        every = torch.cat([c.flatten() for c in cosines.values()])
        return Reading(
            {
                "mean |cosine|": float(every.mean()),
                "largest |cosine|": float(every.max()),
                "loss term": products,
            },
            {"largest |cosine|": {name: float(c.max()) for name, c in cosines.items()}},
        )


def head_weights(material: Material) -> dict[str, Tensor]:
    """Sets of heads, ``[heads, classes, features]`` each, float64, by name."""
    found = {
        name or "the model": module.weights().detach().double()
        for name, module in material.model.named_modules()
        if isinstance(module, MultiverseHead) and module.heads > 1
    }
    with torch.no_grad():
        seen = watch(material, joints=False, slopes=False)
    names = list(seen.weights)
    last: list[str] = []
    for name in reversed(names):
        if seen.reads[name] != seen.reads[names[-1]]:
            break
        last.insert(0, name)
    weights = [seen.weights[name][0].double() for name in last]
    alike = len({weight.shape for weight in weights}) == 1 and len(weights) > 1
    if alike and weights[0].dim() == 2:
        found[" and ".join(last)] = torch.stack(weights)
    return found
