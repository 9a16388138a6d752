"""Layers over positions, as those that mix tokens (docs/theory.md, section 30).

Their rows and columns belong to positions, which are no units: they are few, each has inputs of
its own, and what they do to K does not average out with width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.ops.layout import axis_order

SUMS = frozenset({"add", "sub"})

Axes = Mapping[int, str]
"""Class of units along axes of a value, as far as known."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What is found along axes.

    Attributes:
        across: layers that read positions where another axis holds units.
        same: classes that sums tie to another, which stands for both.
    """

    across: frozenset[str]
    same: dict[str, str]


def follow_axes(traced: TracedModel, owners: Mapping[str, str], opaque: frozenset[str]) -> Followed:
    """Follow the units of layers axis by axis.

    Args:
        traced: the trace.
        owners: class that each layer writes.
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
        >>> names = {"enter": "enter", "mix": "mix"}
        >>> sorted(follow_axes(trace(Mixed(), torch.ones(2, 5, 3)), names, frozenset()).across)
        ['mix']
    """
    return _Follower(traced, owners, opaque).follow()


class _Follower:
    """One walk over a trace."""

    def __init__(
        self, traced: TracedModel, owners: Mapping[str, str], opaque: frozenset[str]
    ) -> None:
        self._traced, self._owners, self._opaque = traced, owners, opaque
        self._ops = {op.name: op for op in traced.ops}
        self._axes: dict[str, Axes] = {}
        self._across: dict[str, str] = {}
        self._same: dict[str, str] = {}

    def follow(self) -> Followed:
        layers = {layer.node: layer for layer in self._traced.layers}
        for op in self._traced.ops:
            layer = layers.get(op.name)
            if layer is not None:
                self._axes[op.name] = self._through(layer, op)
            elif op.target not in self._opaque:
                self._axes[op.name] = self._merged(op)
        same = {name: self._root(name) for name in self._same}
        return Followed(frozenset(self._across), same)

    def _through(self, layer: Layer, op: Op) -> Axes:
        """Axes behind a layer, which is noted if it reads positions."""
        source = self._axes.get(op.inputs[0], {})
        own = 1 if "conv" in layer.op else len(op.shape) - 1
        positions = set(self._across.values())
        rest = {axis: name for axis, name in source.items() if axis != own}
        units = any(name not in positions for name in rest.values())
        if source.get(own) in positions or (own not in source and units):
            self._across[layer.name] = self._owners[layer.name]
        return {**rest, own: self._owners[layer.name]}

    def _merged(self, op: Op) -> Axes:
        """Axes behind an operator of one or more values; a sum ties what lies along its axes."""
        values = op.target == "scaled_dot_product_attention"
        merged: dict[int, str] = {}
        for source in op.inputs[2:3] if values else op.inputs:
            moved = _behind(op, self._ops[source], self._axes.get(source, {}))
            for axis, name in moved.items():
                if op.target in SUMS and axis in merged:
                    self._tie(merged[axis], name)
            merged = moved | merged
        return merged

    def _tie(self, first: str, second: str) -> None:
        positions = set(self._across.values())
        if first in positions or second in positions:
            return
        a, b = self._root(first), self._root(second)
        if a != b:
            self._same[b] = a

    def _root(self, name: str) -> str:
        while name in self._same:
            name = self._same[name]
        return name


def _behind(op: Op, source: Op, axes: Axes) -> dict[int, str]:
    """Axes behind an operator that is no layer: moved, or found again by their length."""
    order = axis_order(op, len(source.shape))
    if order is not None:
        return {order.index(axis): name for axis, name in axes.items()}
    found: dict[int, str] = {}
    for axis, name in axes.items():
        length = source.shape[axis]
        for place in (axis, axis - len(source.shape) + len(op.shape)):
            if 0 <= place < len(op.shape) and op.shape[place] == length:
                found[place] = name
                break
    return found
