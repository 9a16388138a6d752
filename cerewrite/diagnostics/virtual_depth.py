"""Virtual depth: how many blocks the paths that carry the energy pass."""

from __future__ import annotations

import torch

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.tap import skips, watch


@register
class VirtualDepth(Diagnostic):
    """Distribution of the number of residual blocks along paths, weighted by their energy."""

    name = "virtual-depth"
    title = "virtual depth"
    formula = (
        "coefficients of prod_l (1 + lambda_l z) over their sum, lambda_l = |branch|^2 / |skip|^2 "
        "at sum l: the share of energy on paths through so many blocks"
    )
    source = "Littwin & Wolf, The Loss Surface of Residual Networks (1611.02525)"
    caveats = (
        "Branches are taken to be uncorrelated with what they are added to.",
        "Blocks whose skip is projected have no operand that is the other's input: left out.",
    )
    needs = "inputs"

    def cost(self, material: Material) -> Passes:
        """See `Diagnostic.cost`."""
        return Passes(1, 0)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        found = skips(watch(material, slopes=False))
        lambdas = {}
        for joined, own in found:
            skip, branch = (joined.left, joined.right)[:: 1 if own == 0 else -1]
            energy = float(skip.double().square().sum())
            if energy > 0:
                lambdas[joined.where] = float(branch.double().square().sum()) / energy
        if not lambdas:
            raise NotApplicableError(
                "the model has no sum of a value and a function of it",
                advice="virtual depth is of residual networks",
            )
        shares = depth_shares(list(lambdas.values()))
        depth = torch.arange(len(shares), dtype=torch.float64)
        mean = float(shares @ depth)
        spread = float(shares @ (depth - mean).square()) ** 0.5
        return Reading(
            {"mean": mean, "standard deviation": spread, "blocks": float(len(lambdas))},
            {
                "mean": lambdas,
                "blocks": {f"depth {k}": float(share) for k, share in enumerate(shares)},
            },
        )


def depth_shares(lambdas: list[float]) -> torch.Tensor:
    """Share of energy by depth, ``[blocks + 1]``, float64.

    Example:
        >>> depth_shares([1.0, 1.0]).tolist()
        [0.25, 0.5, 0.25]
    """
    shares = torch.ones(1, dtype=torch.float64)
    for value in lambdas:
        # (1 + lambda z) / (1 + lambda), one factor after the other.
        through = torch.cat([torch.zeros(1, dtype=torch.float64), shares]) * value
        past = torch.cat([shares, torch.zeros(1, dtype=torch.float64)])
        shares = (past + through) / (1 + value)
    return shares
