"""Units of a traced model, and where each is read: what a jackknife leaves out.

A unit is one channel of a width class: all that the rows behind it write, wherever sums tie
several layers together. Its energy is gated where sampled layers read it, behind every norm and
activation, so that forward and backward energy (docs/theory.md, section 4) both pass the gate
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from cerewrite.estimators.draws.across import follow_axes
from cerewrite.estimators.draws.gaussian import module_name
from cerewrite.estimators.draws.logits import Rows
from cerewrite.estimators.draws.places import Ids, Place, Units
from cerewrite.estimators.draws.unit_norms import unit_norms
from cerewrite.ir import Layer, Op, TracedModel, class_groups
from cerewrite.kernel.slices import JOINS, joined_axis

_OPAQUE = frozenset(
    {"matmul", "bmm", "baddbmm", "einsum", "softmax", "chunk", "split", "split_with_sizes",
     "unbind", "getitem", "select", "slice", "index", "channel_shuffle", "pixel_shuffle",
     "roll", "flip", "cumsum", "sort", "topk"}
)  # fmt: skip
"""Operators behind which channels cannot be told apart by their position."""
_CONTRACTIONS = frozenset({"matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"})


def find_units(
    traced: TracedModel, model: nn.Module, logits: Mapping[str, Rows] | None = None
) -> Units:
    """Units of a traced model and the modules at which they can be gated.

    Args:
        traced: the trace.
        model: the module that was traced.
        logits: channels of modules that make attention's logits, see `logit_rows`.

    Example:
        >>> from cerewrite.frontend.tracing import trace
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> units = find_units(trace(net, torch.ones(2, 4)), net)
        >>> units.classes, [(place.module, len(place.ids)) for place in units.reads]
        ({'0': (0, 8), '2': (8, 2)}, [('2', 8)])
    """
    return _Finder(traced, model, logits or {}).find()


class _Finder:
    """Follows the channels of sampled layers along the graph."""

    def __init__(self, traced: TracedModel, model: nn.Module, logits: Mapping[str, Rows]) -> None:
        self._traced, self._model, self._logits = traced, model, logits
        self._ops = {op.name: op for op in traced.ops}
        self._layers = {node: layer for layer in traced.layers for node in layer.nodes}
        self._units = Units()
        owners = {layer.name: _owner(layer) for layer in traced.layers}
        self._followed = follow_axes(traced, owners, _OPAQUE)
        self._ids: dict[str, Ids | None] = {}
        self._readers: dict[str, list[Op]] = {}
        for op in traced.ops:
            for name in op.inputs:
                self._readers.setdefault(name, []).append(op)

    def find(self) -> Units:
        units = self._units
        for layer in self._traced.layers:
            name = self._owner(layer)
            if name not in units.classes:
                units.classes[name] = (units.count, layer.out_channels)
            units.writers.setdefault(name, []).append(layer.name)
            if layer.op == "linear_turned":
                units.turned.add(module_name(layer))
        units.groups = class_groups(self._traced)
        for op in self._traced.ops:
            self._ids[op.name] = self._follow(op)
        for layer in self._traced.layers:
            if self._without_units(layer):
                units.across[module_name(layer)] = self._owner(layer)
            elif layer.op == "conv_transpose" and layer.groups > 1:
                units.refused[layer.name] = "grouped transposed convolutions pass no gate"
            elif layer.op == "depthwise_conv":
                ids = self._class(self._owner(layer))
                units.own.append(Place(module_name(layer), 0, ids))
            else:
                self._read(layer)
        self._norms()
        read = {i for place in units.reads for i in place.ids.tolist()}
        for layer in self._traced.layers:
            name = self._owner(layer)
            whole = module_name(layer) in units.across and module_name(layer) not in units.logits
            skipped = layer.name in units.refused or whole
            if layer.op == "depthwise_conv" or skipped:
                continue
            if units.classes[name][0] in read or self._meets(layer, _CONTRACTIONS):
                self._write(layer, name)
            elif self._meets(layer, frozenset()):
                self._write(layer, name)
                units.loose.add(module_name(layer))
        return units

    def _without_units(self, layer: Layer) -> bool:
        """Whether a module is over positions or of logits; if in part, the others have units."""
        module = module_name(layer)
        rows = self._logits.get(module)
        if rows is not None and not rows.all():
            self._units.across[module] = self._owner(layer)
            self._units.logits[module] = rows
            return False
        across = layer.name in self._followed.across or rows is not None
        return across and self._module(module)

    def _one(self, name: str) -> str:
        """The class that stands for it and those that sums tie to it."""
        return self._followed.same.get(name, name)

    def _owner(self, layer: Layer) -> str:
        return self._one(_owner(layer))

    def _class(self, name: str) -> Ids:
        start, size = self._units.classes[name]
        return np.arange(start, start + size)

    def _follow(self, op: Op) -> Ids | None:
        layer = self._layers.get(op.name)
        if layer is not None:
            return self._class(self._owner(layer))
        if op.target in _OPAQUE:
            return None
        if op.target in JOINS:
            return self._joined(op)
        if op.target == "scaled_dot_product_attention":
            return self._ids.get(op.inputs[2])
        found = (self._ids.get(name) for name in op.inputs)
        return next((ids for ids in found if ids is not None), None)

    def _joined(self, op: Op) -> Ids | None:
        """Channels of a concatenation; parts that are not followed are not gated."""
        axis, parts = joined_axis(op), []
        if axis is None:
            return None
        for name in op.inputs:
            length, ids = self._ops[name].shape[axis], self._ids.get(name)
            follows = ids is not None and len(ids) == length
            parts.append(ids if follows and ids is not None else np.full(length, -1))
        joined = np.concatenate(parts)
        return joined if (joined >= 0).any() else None

    def _read(self, layer: Layer) -> None:
        op = self._ops[layer.node]
        known = self._ids.get(op.inputs[0])
        one = len(layer.sources) == 1 and layer.times == 1
        source = (
            self._class(self._one(layer.sources[0]))
            if one and self._one(layer.sources[0]) in self._units.classes
            else known
        )
        if source is None:
            return
        axis = 1 if "conv" in layer.op else -1
        module = module_name(layer)
        if self._module(module):
            self._place(self._units.reads, module, axis, source, op.inputs[0])
            return
        read = set(source.tolist())
        for name, (start, _) in self._units.classes.items():
            if start in read:
                why = f"'{layer.name}', which reads its units, is no module's own weight"
                self._units.refused |= dict.fromkeys(self._units.writers[name], why)

    def _module(self, name: str) -> bool:
        """Whether there is a module of that name."""
        try:
            self._model.get_submodule(name)
        except AttributeError:
            return False
        return True

    def _norms(self) -> None:
        for norm in unit_norms(self._traced, self._model):
            ids = self._ids.get(norm.read)
            if ids is not None:
                places = self._units.norms
                self._place(places, norm.module, norm.axis, ids, norm.given, norm.centred)

    def _place(
        self,
        places: list[Place],
        module: str,
        axis: int,
        ids: Ids,
        source: str,
        centred: bool = False,
    ) -> None:
        """Note a gate at a module's input."""
        length = self._ops[source].shape[axis]
        if length % len(ids) == 0 and all(p.module != module for p in places):
            inner = length // len(ids)
            groups = self._groups(ids)
            places.append(Place(module, axis, np.repeat(ids, inner), inner, groups, centred))

    def _groups(self, ids: Ids) -> int:
        """The members that units lie in, if they are those of one class."""
        for name, groups in self._units.groups.items():
            start, size = self._units.classes.get(self._one(name), (-1, 0))
            if len(ids) == size and ids[0] == start:
                return groups
        return 1

    def _write(self, layer: Layer, name: str) -> None:
        """Tap a layer's output."""
        module = module_name(layer)
        if not self._module(module):
            self._units.refused[layer.name] = "its weight is used outside its module"
            return
        axis = 1 if "conv" in layer.op else -1
        if all(place.module != module for place in self._units.writes):
            ids = self._class(name)
            self._units.writes.append(Place(module, axis, ids, groups=self._groups(ids)))

    def _meets(self, layer: Layer, targets: frozenset[str]) -> bool:
        """Whether what a layer writes meets one of some operators before any other layer.

        Without operators: whether it meets another layer at all.
        """
        stack = [op for node in layer.nodes for op in self._readers.get(node, ())]
        seen: set[str] = set()
        while stack:
            op = stack.pop()
            if op.target in targets or (not targets and op.name in self._layers):
                return True
            if op.name not in seen and op.name not in self._layers:
                seen.add(op.name)
                stack += _others(self._readers.get(op.name, ()))
        return False


def _others(ops: Sequence[Op]) -> list[Op]:
    return [op for op in ops if op.target != "output"]


def _owner(layer: Layer) -> str:
    """Whose units a layer writes: its class's, or its own where it writes the class several times.

    The two kinds never share a name.
    """
    if layer.target is None:
        return layer.name
    return layer.target if layer.writes == (1,) else f"{layer.name} ({layer.writes} times)"
