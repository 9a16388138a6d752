"""What every sampled layer has in an ensemble: its channel counts, and one member's bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.ops.surgery.keeping import check_size, part


def ensemble_sizes(
    module: nn.Module,
    layer: RegionLayer,
    multiplicity: int,
    widths: tuple[int, ...],
    sizes: tuple[int, int],
    *,
    inner: int = 1,
    what: str = "channels",
) -> tuple[int, int]:
    """Inputs and outputs of a layer, all members together; an end outside the region stays.

    Args:
        module: the original module, for messages.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.
        sizes: the original's inputs and outputs.
        inner: inputs per channel.
        what: what the module calls them.

    Raises:
        RewriteError: if the original's sizes are not the plan's.
    """
    n_in, n_out = sizes
    if layer.role != "entry":
        check_size(module, f"input {what}", n_in, layer.in_channels * inner)
        n_in = multiplicity * layer.reads(widths) * inner
    if layer.role != "exit":
        check_size(module, f"output {what}", n_out, layer.out_channels)
        n_out = multiplicity * widths[layer.target]
    return n_in, n_out


def member_bias(
    bias: Tensor | None, layer: RegionLayer, index: int, widths: tuple[int, ...]
) -> Tensor | None:
    """One member's part of a bias; an exit's goes to member 0, the others get zeros."""
    if bias is None:
        return None
    if layer.role == "exit":
        return bias if index == 0 else torch.zeros_like(bias)
    return bias[part(index, widths[layer.target])]
