"""Layers and per-channel modules over a concatenation of what ensembles wrote.

There the channels lie part by part, and within a part member by member. A dense exit does not
mind; a layer with one block per member reorders its input first; per-channel modules act where
their channels are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import (
    ConcatConv1d,
    ConcatConv2d,
    ConcatConv3d,
    ConcatenationReader,
    ConcatLinear,
    member_order,
)
from cerewrite.ops.surgery.conv import conv_like, plain_conv

_CONVS: dict[type[nn.Module], type[Any]] = {
    nn.Conv1d: ConcatConv1d,
    nn.Conv2d: ConcatConv2d,
    nn.Conv3d: ConcatConv3d,
}


def read_concatenation(module: nn.Module, parts: Sequence[int]) -> nn.Module:
    """A split interior layer that reads a concatenation; it takes over the parameters.

    Args:
        module: a grouped convolution or a `BlockDiagonalLinear`.
        parts: channels of each part, all members together (elements, for a linear layer).
    """
    new: nn.Module
    if isinstance(module, BlockDiagonalLinear):
        sizes = (module.in_features, module.out_features, module.members)
        bias = module.bias is not None
        new = ConcatLinear(*sizes, bias, parts=parts, device="meta", dtype=module.weight.dtype)
    else:
        conv = plain_conv(module)
        new = conv_like(
            conv,
            (conv.in_channels, conv.out_channels),
            conv.groups,
            bias=conv.bias is not None,
            kind=_CONVS[type(conv)],
            parts=tuple(parts),
        )
    return _take(new, module)


def _take(new: nn.Module, old: nn.Module) -> nn.Module:
    for name, parameter in old._parameters.items():
        new._parameters[name] = parameter
    return new.to(device=next(old.parameters()).device).train(old.training)


def member_major(
    module: nn.Module, layer: RegionLayer, multiplicity: int, widths: Sequence[int]
) -> nn.Module:
    """A layer of an ensemble as if the concatenation it reads lay member by member.

    Args:
        module: the layer in the ensemble.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.

    Returns:
        the module itself where it reads one class; else a copy, from which members can be cut.
    """
    if isinstance(module, ConcatenationReader):
        return _plain(module)
    if len(layer.sources) < 2 or layer.role != "exit":
        return module
    parts = [multiplicity * widths[source] * _inner(module, layer) for source in layer.sources]
    return _permuted(module, member_order(parts, multiplicity), axis=1)


def _inner(module: nn.Module, layer: RegionLayer) -> int:
    """Elements of a channel along the weight's input axis."""
    return layer.kernel if isinstance(module, nn.Linear) else 1


def _plain(module: ConcatenationReader) -> nn.Module:
    """The layer without its reordering."""
    new: nn.Module
    if isinstance(module, BlockDiagonalLinear):
        sizes = (module.in_features, module.out_features, module.members)
        new = BlockDiagonalLinear(*sizes, module.bias is not None, device="meta")
    else:
        conv: Any = module
        kind = next(kind for kind, own in _CONVS.items() if isinstance(module, own))
        channels = (conv.in_channels, conv.out_channels)
        new = conv_like(conv, channels, conv.groups, bias=conv.bias is not None, kind=kind)
    for name, parameter in module._parameters.items():
        new._parameters[name] = parameter
    return new.train(module.training)


def channels_by_member(module: nn.Module, parts: Sequence[int], multiplicity: int) -> nn.Module:
    """A per-channel module over a concatenation as if its channels lay member by member.

    Args:
        module: the resized module.
        parts: channels of each part, all members together.
        multiplicity: members.
    """
    return _permuted(module, member_order(parts, multiplicity), axis=0)


def _permuted(module: nn.Module, order: Sequence[int], axis: int) -> nn.Module:
    """A copy whose settings are permuted along an axis that has as many elements as the order."""
    new = copy.deepcopy(module)
    with torch.no_grad():
        for settings in (new._parameters, new._buffers):
            for tensor in settings.values():
                if tensor is None or tensor.shape[axis : axis + 1] != (len(order),):
                    continue
                index = torch.tensor(order, device=tensor.device)
                tensor.copy_(tensor.index_select(axis, index))
    return new
