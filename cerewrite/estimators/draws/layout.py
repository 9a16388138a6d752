"""How a layer's weight lies: output channels first, input channels of one group second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

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

    def columns(self, gradient: Tensor, inputs: int) -> Array:
        """Squares of a weight's gradient summed per input channel, ``[inputs]``.

        Example:
            >>> import torch
            >>> Layout().columns(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), 2).tolist()
            [10.0, 4.0]
        """
        turned = self.turn(gradient)
        per_group = turned.shape[1]
        groups = inputs // per_group
        squares = turned.detach().square().reshape(groups, -1, per_group, turned[0, 0].numel())
        sums = squares.sum((1, 3)).flatten().double()
        if self.order is not None:
            sums = sums.new_zeros(inputs).index_add(0, self.order, sums)
        found: Array = sums.cpu().numpy()
        return found
