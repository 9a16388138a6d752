"""How a layer's weight lies: output channels first, input channels of one group second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cerewrite.estimators.draws.logits import Rows
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import ConcatenationReader

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a weight has its output and input channels.

    Attributes:
        transposed: whether input channels come first (transposed convolutions).
        blocks: whether it is ``[members, in / members, out / members]``.
        order: which input channel each column reads; None for their own order.
        groups: groups of the layer.
    """

    transposed: bool = False
    blocks: bool = False
    order: Tensor | None = None
    groups: int = 1

    @staticmethod
    def of(module: nn.Module, turned: bool = False) -> Layout:
        """The layout of a module's weight.

        Args:
            module: the module.
            turned: whether it multiplies with a weight ``[in, out]``.

        Example:
            >>> Layout.of(BlockDiagonalLinear(4, 6, members=2)).blocks
            True
        """
        blocks = isinstance(module, BlockDiagonalLinear)
        groups = getattr(module, "members" if blocks else "groups", 1)
        order = module.reorder.order if isinstance(module, ConcatenationReader) else None
        turned = turned or bool(getattr(module, "transposed", False))
        return Layout(turned, blocks, order, groups)

    def turn(self, gradient: Tensor) -> Tensor:
        """A weight's gradient as ``[out, in / groups, ...]``."""
        if self.blocks:
            return gradient.transpose(1, 2).flatten(0, 1)[..., None]
        return gradient.transpose(0, 1) if self.transposed else gradient

    def columns(self, weight: Tensor, gradient: Tensor, inputs: int) -> Array:
        """Scatter over outputs of ``W . gradient`` per input channel, ``[inputs]``.

        Example:
            >>> import torch
            >>> weight, gradient = torch.ones(2, 2), torch.tensor([[1.0, 3.0], [0.0, 4.0]])
            >>> Layout().columns(weight, gradient, 2).tolist()
            [1.0, 1.0]
        """
        sums = _spread(self._terms(weight, gradient, inputs), over=2).sum(1).flatten()
        if self.order is not None:
            sums = sums.new_zeros(inputs).index_add(0, self.order, sums)
        found: Array = sums.cpu().numpy()
        return found

    def rows(self, weight: Tensor, gradient: Tensor) -> Array:
        """Likewise over inputs per output channel, ``[out]``.

        Example:
            >>> import torch
            >>> weight, gradient = torch.ones(2, 2), torch.tensor([[1.0, 3.0], [0.0, 4.0]])
            >>> Layout().rows(weight, gradient).tolist()
            [1.0, 1.0]
        """
        inputs = self.groups * self.turn(weight).shape[1]
        found: Array = _spread(self._terms(weight, gradient, inputs), over=1).sum(2).cpu().numpy()
        return found.reshape(-1)

    def half_squares(self, weight: Tensor, gradient: Tensor | None, rows: Rows | None) -> float:
        """Half the squares of ``W . gradient``; of some output channels where ``rows`` says which.

        What a log K does that holds products of two such weights.
        """
        if gradient is None:
            return 0.0
        terms = self.turn((weight * gradient).detach())
        chosen = terms if rows is None else terms[torch.from_numpy(rows)]
        return float(chosen.square().sum()) / 2

    def _terms(self, weight: Tensor, gradient: Tensor, inputs: int) -> Tensor:
        """``W . gradient`` of every pair of channels, ``[groups, out / groups, in / groups]``."""
        product = self.turn((weight * gradient).detach()).double()
        per_group = product.shape[1]
        terms = product.reshape(len(product), per_group, -1).sum(2)
        return terms.reshape(inputs // per_group, -1, per_group)


def _spread(terms: Tensor, over: int) -> Tensor:
    """What scatters in the terms: squares less the means over units and over what they meet.

    Units lie along the axis ``over``, their partners along the other. What partners have in
    common is the unit's own influence; of N partners ``N / (N - 1)`` makes up for its mean.
    """
    partners = 3 - over
    count = terms.shape[partners]
    for axis in (over, partners):
        if terms.shape[axis] > 1:
            terms = terms - terms.mean(axis, keepdim=True)
    return terms.square() * (count / max(count - 1, 1))
