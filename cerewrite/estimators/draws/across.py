"""Layers over positions, as those that mix tokens (docs/theory.md, section 30).

Their rows and columns belong to positions, which are no units: they are few, each has inputs of
its own, and what they do to K does not average out with width.
"""

from __future__ import annotations

from collections.abc import Mapping

from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.ops.layout import axis_order

UNITS, POSITIONS = "units", "positions"

Axes = Mapping[int, str]
"""What lies along axes of a value, as far as known."""


def layers_across(traced: TracedModel, opaque: frozenset[str]) -> frozenset[str]:
    """Names of the layers that read positions where another axis holds the units.

    Args:
        traced: the trace.
        opaque: operators behind which axes are not followed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from cerewrite.frontend.tracing import trace
        >>> class Mixed(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.enter, self.mix = nn.Linear(3, 8), nn.Linear(5, 5)
        ...     def forward(self, x: torch.Tensor) -> torch.Tensor:
        ...         return self.mix(self.enter(x).transpose(1, 2))
        >>> sorted(layers_across(trace(Mixed(), torch.ones(2, 5, 3)), frozenset()))
        ['mix']
    """
    ops = {op.name: op for op in traced.ops}
    layers = {layer.node: layer for layer in traced.layers}
    axes: dict[str, Axes] = {}
    found: set[str] = set()
    for op in traced.ops:
        layer = layers.get(op.name)
        if layer is not None:
            axes[op.name] = _through(layer, op, axes.get(op.inputs[0], {}), found)
        elif op.target not in opaque:
            read = op.inputs[2:3] if op.target == "scaled_dot_product_attention" else op.inputs
            merged: dict[int, str] = {}
            for name in read:
                merged |= _behind(op, ops[name], axes.get(name, {})) | merged
            axes[op.name] = merged
    return frozenset(found)


def _through(layer: Layer, op: Op, source: Axes, found: set[str]) -> Axes:
    """Axes behind a layer, which is noted if it reads positions."""
    own = 1 if "conv" in layer.op else len(op.shape) - 1
    rest = {axis: kind for axis, kind in source.items() if axis != own}
    kind = source.get(own)
    across = kind == POSITIONS or (kind is None and UNITS in rest.values())
    if across:
        found.add(layer.name)
    return {**rest, own: POSITIONS if across else UNITS}


def _behind(op: Op, source: Op, axes: Axes) -> dict[int, str]:
    """Axes behind an operator that is no layer: moved, or found again by their length."""
    order = axis_order(op, len(source.shape))
    if order is not None:
        return {order.index(axis): kind for axis, kind in axes.items()}
    found: dict[int, str] = {}
    for axis, kind in axes.items():
        length = source.shape[axis]
        for place in (axis, axis - len(source.shape) + len(op.shape)):
            if 0 <= place < len(op.shape) and op.shape[place] == length:
                found[place] = kind
                break
    return found
