"""Linear layers in an ensemble: dense entries and exits, block-diagonal interiors."""

from __future__ import annotations

from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import BlockDiagonalLinear, times_scale
from cerewrite.ops.surgery.keeping import empty_like, expect, part, slice_channels
from cerewrite.ops.surgery.sizes import ensemble_sizes, member_bias


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
    own = linear.in_features, linear.out_features
    n_in, n_out = ensemble_sizes(
        linear, layer, multiplicity, widths, own, inner=layer.kernel, what="features"
    )
    dtype = linear.weight.dtype
    if layer.role == "interior" and multiplicity > 1:
        blocks = BlockDiagonalLinear(n_in, n_out, multiplicity, bias, device="meta", dtype=dtype)
        return empty_like(blocks, linear)
    return empty_like(nn.Linear(n_in, n_out, bias, device="meta", dtype=dtype), linear)


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
    if isinstance(module, BlockDiagonalLinear):
        weight = module.weight[index].T
    if layer.role == "exit":
        own = part(index, layer.reads(widths) * layer.kernel)
        weight = times_scale(weight[:, own], module)
    elif not isinstance(module, BlockDiagonalLinear):
        weight = weight[part(index, widths[layer.target])]
    bias = member_bias(getattr(module, "bias", None), layer, index, widths)
    n_out, n_in = weight.shape
    narrow = nn.Linear(n_in, n_out, bias is not None, device="meta", dtype=weight.dtype)
    return slice_channels(narrow, module, weight=weight, bias=bias)
