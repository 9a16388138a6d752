"""What happens between a region's layers: norms, activations, pools, depthwise convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from cerewrite.ir import Op, Region, TracedModel
from cerewrite.timing.calls import Timed
from cerewrite.timing.clocked import nanoseconds
from cerewrite.timing.store import Store

PER_ELEMENT = 100.0
"""FLOPs that an element of a norm or an activation takes as long as, about."""


def channel_times(
    region: Region, traced: TracedModel, model: nn.Module, *, kind: Timed, store: Store
) -> list[float]:
    """Nanoseconds per channel of each class, of what is done to it channel by channel.

    An operator belongs to the class whose layer's output reaches it without another layer in
    between, and is counted once. Timed are leaf modules and pointwise functions, at the original
    width; views cost nothing and are left out, sums and the like as well.

    Args:
        region: the region.
        traced: the trace.
        model: the module, in evaluation mode.
        kind: what is timed of a call, at which batch.
        store: where times are kept.

    Returns:
        One figure per class of the region.
    """
    ops = {op.name: op for op in traced.ops}
    sampled = [layer for layer in traced.layers if layer.op != "depthwise_conv"]
    layers = {node: layer for layer in sampled for node in layer.nodes}
    owner: dict[str, int] = {}
    for node, layer in layers.items():
        if layer.target in region.classes:
            owner[node] = region.classes.index(layer.target)
    found = [0.0] * len(region.classes)
    for op in traced.ops:
        if op.name in layers:
            continue
        reached = [owner[name] for name in op.inputs if name in owner]
        if not reached:
            continue
        owner[op.name] = reached[0]
        source = ops[op.inputs[0]]
        call = _call(op, model)
        inside = (source.module, source.call) == (op.module, op.call)
        if call is not None and not (inside and isinstance(call[1], nn.Module)):  # timed whole
            rows = kind.rows(PER_ELEMENT * math.prod(source.shape) / traced.batch)
            shape = (rows * source.shape[0] // traced.batch, *source.shape[1:])
            what, function = call

            def measure(
                call: Callable[..., object] = function, at: tuple[int, ...] = shape
            ) -> float:
                return nanoseconds(kind.action(call, at), quick=kind.quick)

            spent = store.get(f"{kind.prefix}{what} {shape}", measure) * kind.batch / rows
            found[reached[0]] += spent / region.sizes[reached[0]]
    return found


def _call(op: Op, model: nn.Module) -> tuple[str, Callable[..., object]] | None:
    """What to time, and its name: a leaf module on its input, or a pointwise function."""
    module = model.get_submodule(op.module) if op.module else model
    if op.module and not list(module.children()) and not isinstance(module, nn.Dropout):
        return f"{op.target} {module}", module
    return None if op.function is None else (f"{op.target} pointwise", op.function)
