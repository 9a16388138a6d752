"""Norms that divide by an example's own energy, and where the channels of their inputs are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cerewrite.ir import Op, TracedModel
from cerewrite.nn import ChannelLayerNorm, MemberLayerNorm, MemberRMSNorm

_OWN_ENERGY = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, MemberLayerNorm, MemberRMSNorm)
_CENTRED = (nn.LayerNorm, nn.GroupNorm, MemberLayerNorm)
_BY_HAND = frozenset({"rms_direction", "centred_direction"})
_ON_AXIS_ONE = (nn.GroupNorm, ChannelLayerNorm)


@dataclass(frozen=True, slots=True)
class UnitNorm:
    """One norm.

    Attributes:
        module: qualified name of its module.
        axis: channel axis of what the module is given; -1 for the last.
        given: what that is.
        read: what the norm itself reads: the same, or permuted by the module.
        centred: whether it subtracts a mean.
    """

    module: str
    axis: int
    given: str
    read: str
    centred: bool


def unit_norms(traced: TracedModel, model: nn.Module) -> Iterator[UnitNorm]:
    """The norms of a traced model over the units of an example.

    Args:
        traced: the trace.
        model: the module that was traced.
    """
    ops = {op.name: op for op in traced.ops}
    for op in traced.ops:
        if not op.module or op.target in ("parameter", "constant") or not op.inputs:
            continue
        module, read = model.get_submodule(op.module), op.inputs[0]
        by_hand = op.target in _BY_HAND and not list(module.children())
        if not by_hand and not isinstance(module, _OWN_ENERGY):
            continue
        given = read if by_hand else _given(op, module, traced, ops)
        if given is None:
            continue
        own = isinstance(module, _ON_AXIS_ONE) or traced.axes.get(given) == 1
        first = op.args[1] == 1 if by_hand else own
        axis = 1 if first and len(op.shape) != 2 else -1
        centred = op.target == "centred_direction" or isinstance(module, _CENTRED)
        yield UnitNorm(op.module, axis, given, read, centred)


def _given(op: Op, module: nn.Module, traced: TracedModel, ops: dict[str, Op]) -> str | None:
    """What the module of a norm is given; it may permute the channels last by itself.

    None for an operator that does not norm the channels: one that permutes them, say.
    """
    read, last = ops[op.inputs[0]], len(op.shape) - 1
    if isinstance(module, _ON_AXIS_ONE):
        return read.name
    if traced.axes.get(read.name, last) != last:
        return None
    while (read.module, read.call) == (op.module, op.call) and read.inputs:
        read = ops[read.inputs[0]]
    return read.name
