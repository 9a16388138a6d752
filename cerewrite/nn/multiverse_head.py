"""Several heads on the same features whose weights are orthogonal, class by class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.errors import UsageError


class MultiverseHead(nn.Module):
    """Linear heads of which no two have a common direction for any class.

    Of class c head h has the weight ``f_ch``; ``f_ch . f_cg = 0`` for every h != g holds exactly:
    the weights that are used are the stored ones after Gram-Schmidt over the heads, each with
    the norm of its stored one. Train the sum of the heads' losses; any head alone classifies.

    Args:
        features: channels read, at least ``heads``.
        classes: classes.
        heads: how many, at least 1.
        bias: whether each head has biases.

    Raises:
        UsageError: if there are more heads than features.

    References:
        Littwin & Wolf, The Multiverse Loss for Robust Transfer Learning (1511.09033).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> head = MultiverseHead(8, 3, heads=2)
        >>> [*head(torch.randn(4, 8)).shape]
        [4, 3]
        >>> bool((head.weights()[0] * head.weights()[1]).sum(1).abs().max() < 1e-6)
        True
    """

    def __init__(self, features: int, classes: int, heads: int = 2, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= heads <= features:
            raise UsageError(
                f"{heads} heads on {features} features",
                advice="give between 1 head and as many as features",
            )
        self.features, self.classes, self.heads = features, classes, heads
        self.weight = nn.Parameter(torch.empty(heads, classes, features))
        self.bias = nn.Parameter(torch.empty(heads, classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `torch.nn.Linear` does; biases are 0."""
        bound = self.features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def weights(self) -> Tensor:
        """The orthogonal weights, ``[heads, classes, features]``."""
        made: list[Tensor] = []
        for stored in self.weight.unbind():
            left = stored
            for one in made:
                # Take out what lies along an earlier head's weight of the same class.
                share = (left * one).sum(-1, keepdim=True) / one.square().sum(-1, keepdim=True)
                left = left - share * one
            norm = stored.norm(dim=-1, keepdim=True) / left.norm(dim=-1, keepdim=True)
            made.append(left * norm)
        return torch.stack(made)

    def each(self, x: Tensor) -> Tensor:
        """Every head's scores.

        Args:
            x: features, ``[batch, features]``.

        Returns:
            ``[heads, batch, classes]``.
        """
        scores = torch.einsum("bf,hcf->hbc", x, self.weights())
        return scores if self.bias is None else scores + self.bias[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """The heads' mean scores, ``[batch, classes]``."""
        return self.each(x).mean(0)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.features}, {self.classes}, heads={self.heads}"
