"""What happens between a region's layers: norms, activations, pools, depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cerewrite.ir import Op, Region, TracedModel
from cerewrite.timing.clocked import nanoseconds
from cerewrite.timing.store import Store


def channel_times(
    region: Region, traced: TracedModel, model: nn.Module, *, batch: int, store: Store
) -> list[float]:
    """Nanoseconds per channel of each class, of what is done to it channel by channel.

    An operator belongs to the class whose layer's output reaches it without another layer in
    between, and is counted once. Timed are leaf modules and pointwise functions, at the original
    width; views cost nothing and are left out, sums and the like as well.

    Args:
        region: the region.
        traced: the trace.
        model: the module, in evaluation mode.
        batch: examples per call.
        store: where times are kept.

    Returns:
        One figure per class of the region.
    """
    ops = {op.name: op for op in traced.ops}
    layers = {layer.node: layer for layer in traced.layers if layer.op != "depthwise_conv"}
    owner: dict[str, int] = {}
    for layer in layers.values():
        if layer.target in region.classes:
            owner[layer.node] = region.classes.index(layer.target)
    found = [0.0] * len(region.classes)
    for op in traced.ops:
        if op.name in layers:
            continue
        reached = [owner[name] for name in op.inputs if name in owner]
        if not reached:
            continue
        owner[op.name] = reached[0]
        source = ops[op.inputs[0]]
        call = _call(op, source, model, batch, traced.batch)
        if call is not None:
            kind, action = call
            spent = store.get(f"{kind} {_shape(source, batch, traced.batch)}", action)
            found[reached[0]] += spent / region.sizes[reached[0]]
    return found


def _call(
    op: Op, source: Op, model: nn.Module, batch: int, rows: int
) -> tuple[str, Callable[[], float]] | None:
    """What to time: a leaf module on its input, or a pointwise function."""
    shape = _shape(source, batch, rows)
    module = model.get_submodule(op.module) if op.module else model
    if op.module and not list(module.children()) and not isinstance(module, nn.Dropout):
        return f"{op.target} {module}", lambda: _timed(module, shape)
    function = op.function
    if function is None:
        return None
    return f"{op.target} pointwise", lambda: _timed(function, shape)


def _timed(function: Callable[..., object], shape: tuple[int, ...]) -> float:
    x = torch.randn(shape)
    return nanoseconds(lambda: function(x))


def _shape(op: Op, batch: int, rows: int) -> tuple[int, ...]:
    return (batch * op.shape[0] // rows, *op.shape[1:])
