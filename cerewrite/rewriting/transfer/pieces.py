"""Reading the original's weights channel by channel, and writing them into members."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import BlockDiagonalLinear, scale_of
from cerewrite.ops import sampled_of
from cerewrite.ops.modules import WHOLE


def dense_weight(module: nn.Module, layer: RegionLayer) -> Tensor:
    """A layer's weight without its groups: ``[out, in, kernel elements]``, zeros between groups."""
    weight = module.get_parameter("weight").detach()
    groups = int(getattr(module, "groups", 1))
    if groups == 1 and not getattr(module, "transposed", False):
        return weight.reshape(layer.out_channels, layer.in_channels, layer.kernel)
    if getattr(module, "transposed", False):
        own = weight.reshape(groups, -1, layer.out_channels // groups, layer.kernel).transpose(1, 2)
    else:
        own = weight.reshape(groups, layer.out_channels // groups, -1, layer.kernel)
    dense = own.new_zeros(groups, own.shape[1], groups, own.shape[2], layer.kernel)
    for g in range(groups):
        dense[g, :, g] = own[g]
    return dense.reshape(layer.out_channels, layer.in_channels, layer.kernel)


def blocks_of(module: nn.Module) -> int:
    """Independent blocks of an ensemble's layer: its members inside a region, else 1."""
    if isinstance(module, BlockDiagonalLinear):
        return module.members
    return int(getattr(module, "groups", 1))


def store_block(module: nn.Module, index: int, weight: Tensor, bias: Tensor | None) -> None:
    """Write one block's weight ``[out, in, kernel elements]`` and bias ``[out]`` in place."""
    count, rule = blocks_of(module), sampled_of(module)
    assert rule is not None, type(module)
    target = rule.member_weight(module, (index, count), WHOLE)
    with torch.no_grad():
        target.copy_((weight / scale_of(module)).reshape(target.shape))
        if bias is not None:
            module.get_parameter("bias").chunk(count)[index].copy_(bias)


def take_channels(new: nn.Module, old: nn.Module, index: Tensor) -> None:
    """Give a resized per-channel module the original's settings of these channels, in place.

    Settings that are no longer one per channel (single slopes, counters) are copied whole.
    """
    channels = dict(old.named_parameters()) | dict(old.named_buffers())
    targets = dict(new.named_parameters()) | dict(new.named_buffers())
    with torch.no_grad():
        for name, target in targets.items():
            source = channels[name]
            per_channel = source.dim() > 0 and target.shape[0] == len(index)
            picked = source[index.to(source.device)] if per_channel and len(source) > 1 else source
            target.copy_(picked)
