"""Linear layers in an ensemble: dense entries and exits, block-diagonal interiors."""

from __future__ import annotations

from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import BlockDiagonalLinear, scale_of
from cerewrite.surgery.keeping import agree, blank, cut, expect, part


def split_linear(
    module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
) -> nn.Module:
    """The linear layer of an ensemble, parameters allocated but not drawn.

    Args:
        module: the original `torch.nn.Linear`.
        layer: its part in the region; ``kernel`` counts the elements per channel that a
            channel-major flatten left on its input.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        a `torch.nn.Linear` for entries and exits, a `BlockDiagonalLinear` inside (a plain
        linear layer if there is one member only).

    Raises:
        RewriteError: if the module is no plain linear layer or has other sizes.
    """
    linear = expect(module, (nn.Linear,))
    bias = linear.bias is not None
    n_in, n_out = linear.in_features, linear.out_features
    if layer.role != "entry":
        agree(linear, "input features", n_in, layer.in_channels * layer.kernel)
        n_in = multiplicity * layer.reads(widths) * layer.kernel
    if layer.role != "exit":
        agree(linear, "output features", n_out, layer.out_channels)
        n_out = multiplicity * widths[layer.target]
    dtype = linear.weight.dtype
    if layer.role == "interior" and multiplicity > 1:
        blocks = BlockDiagonalLinear(n_in, n_out, multiplicity, bias, device="meta", dtype=dtype)
        return blank(blocks, linear)
    return blank(nn.Linear(n_in, n_out, bias, device="meta", dtype=dtype), linear)


def linear_member(
    module: nn.Module,
    layer: RegionLayer,
    index: int,
    multiplicity: int,
    widths: tuple[int, ...],
) -> nn.Module:
    """One member's narrow linear layer, cut from a split one.

    Args:
        module: what `split_linear` returned.
        layer: its part in the region.
        index: which member, from 0.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        a `torch.nn.Linear`; an exit's bias goes to member 0, the others get zeros.
    """
    weight: Tensor = module.get_parameter("weight")
    bias: Tensor | None = getattr(module, "bias", None)
    if isinstance(module, BlockDiagonalLinear):
        weight = module.weight[index].T
    if layer.role == "exit":
        own = part(index, layer.reads(widths) * layer.kernel)
        weight = weight[:, own] * scale_of(module)
        bias = bias if bias is None or index == 0 else bias.new_zeros(bias.shape)
    else:
        rows = part(index, widths[layer.target])
        weight = weight if isinstance(module, BlockDiagonalLinear) else weight[rows]
        bias = None if bias is None else bias[rows]
    n_out, n_in = weight.shape
    narrow = nn.Linear(n_in, n_out, bias is not None, device="meta", dtype=weight.dtype)
    return cut(narrow, module, weight=weight, bias=bias)


def linear_blocks(module: nn.Module) -> Tensor:
    """The weight as ``[units, fan_in]``, a view; ``[members, units, fan_in]`` if block-diagonal.

    The last axis is the fan-in in either case.
    """
    if isinstance(module, BlockDiagonalLinear):
        return module.weight.transpose(1, 2)
    return module.get_parameter("weight")
