"""Modules over a concatenation of what ensembles wrote, as if it lay member by member.

There the channels lie part by part, and within a part member by member. A dense exit does not
mind; a layer with one block per member reorders its input first; per-channel modules act where
their channels are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from cerewrite.ir import RegionLayer
from cerewrite.nn import MemberNorm
from cerewrite.nn.channel_reorder import ConcatenationReader, member_order
from cerewrite.ops import concatenation_layer, sampled_layer
from cerewrite.ops.modules import WHOLE


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
        return concatenation_layer(layer.op).plain(module)
    if layer.role == "entry" and len(layer.writes) > 1:
        written = layer.parts(multiplicity * widths[layer.target])
        return _permuted(module, member_order(written, multiplicity))
    if len(layer.sources) < 2 or layer.role != "exit":
        return module
    inner = sampled_layer(layer.op).inner(layer)
    parts = [multiplicity * layer.times * widths[source] * inner for source in layer.sources]
    new = copy.deepcopy(module)
    weight = sampled_layer(layer.op).member_weight(new, WHOLE, WHOLE)  # a view: inputs on axis 1
    order = torch.tensor(member_order(parts, multiplicity), device=weight.device)
    weight.copy_(weight.index_select(1, order))
    return new


def channels_by_member(module: nn.Module, parts: Sequence[int], multiplicity: int) -> nn.Module:
    """A per-channel module over a concatenation as if its channels lay member by member.

    Args:
        module: the resized module.
        parts: channels of each part, all members together.
        multiplicity: members.
    """
    new = _permuted(module, member_order(parts, multiplicity))
    if isinstance(new, MemberNorm):
        new.before = new.after = None
    return new


def _permuted(module: nn.Module, order: Sequence[int]) -> nn.Module:
    """A copy whose settings are permuted along axis 0 where it is as long as the order."""
    new = copy.deepcopy(module)
    with torch.no_grad():
        for settings in (new._parameters, new._buffers):
            for tensor in settings.values():
                if tensor is None or tensor.shape[:1] != (len(order),):
                    continue
                index = torch.tensor(order, device=tensor.device)
                tensor.copy_(tensor.index_select(0, index))
    return new
