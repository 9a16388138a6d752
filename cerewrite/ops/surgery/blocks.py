"""The weights of single members inside an ensemble's layer, as views; what a unit reads."""

from __future__ import annotations

from torch import Tensor, nn

from cerewrite.nn import BlockDiagonalLinear
from cerewrite.ops.surgery.conv_transpose import KINDS


def member_weights(module: nn.Module, writers: int, readers: int) -> list[list[Tensor]]:
    """The weight of every member's own layer, views ``[out, in / groups, *kernel]``.

    Args:
        module: a linear, block-diagonal, convolution or depthwise layer of an ensemble.
        writers: members among which its output channels are divided; 1 for a plain exit.
        readers: members whose outputs an exit adds; 1 for every other layer.

    Returns:
        One list per writer, with one view per reader.

    Example:
        >>> exit = nn.Linear(6, 2)
        >>> [[tuple(piece.shape) for piece in row] for row in member_weights(exit, 1, 3)]
        [[(2, 2), (2, 2), (2, 2)]]
    """
    if isinstance(module, BlockDiagonalLinear):
        return [[block.T] for block in module.weight.detach()]
    weight = module.get_parameter("weight").detach()
    if isinstance(module, KINDS):
        groups = module.groups
        rows = weight.chunk(writers, 0 if groups > 1 else 1)
        return [[piece.transpose(0, 1) for piece in row.chunk(readers, 0)] for row in rows]
    assert weight.shape[0] % writers == weight.shape[1] % readers == 0, (weight.shape, writers)
    return [list(rows.chunk(readers, 1)) for rows in weight.chunk(writers, 0)]


def fan_in(module: nn.Module) -> int:
    """Inputs that one output unit of a linear, block-diagonal or convolution layer reads.

    Example:
        >>> fan_in(nn.Conv2d(4, 6, 3, groups=2)), fan_in(nn.ConvTranspose2d(4, 6, 3, groups=2))
        (18, 18)
    """
    weight = module.get_parameter("weight")
    if isinstance(module, BlockDiagonalLinear):
        return weight.shape[1]
    if isinstance(module, KINDS):
        return weight.shape[0] // module.groups * weight[0, 0].numel()
    return weight[0].numel()
