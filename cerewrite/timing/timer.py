"""Time a region's layers at several widths, on tensors of the shapes that the trace saw."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import (
    Analysis,
    BlockTimes,
    Design,
    Inputs,
    Profile,
    Region,
    RegionEstimate,
    RegionLayer,
    TracedModel,
)
from cerewrite.ops import sampled_layer, splittable_layer
from cerewrite.runtime.modes import called, evaluating
from cerewrite.runtime.trees import with_rows
from cerewrite.timing.between import channel_times
from cerewrite.timing.clocked import nanoseconds
from cerewrite.timing.store import Store, machine

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Member widths at which interior layers are timed."""


def profile(
    analysis: Analysis,
    traced: TracedModel,
    model: nn.Module,
    inputs: Inputs,
    *,
    batch: int = 1,
    store: Store | None = None,
) -> Analysis:
    """An analysis that knows how long its model and its regions' layers take on this machine.

    Layers are timed in float32 in PyTorch eager, without gradients, at the current number of
    threads: interiors as the grouped or block-diagonal modules that a split would put there,
    entries and exits dense. Times are medians of five runs and are remembered in ``store``.

    Args:
        analysis: the analysis.
        traced: the trace it was made from.
        model: the module; it is only read.
        inputs: its inputs as a tuple or a dict, batch first; rows are repeated or cut.
        batch: examples per call.
        store: where times are kept; the user's cache if not given.

    Raises:
        UsageError: if the model is not on the CPU, or the batch is below 1.
    """
    if batch < 1:
        raise UsageError(f"latency at batch {batch}", advice="give a batch of 1 or more")
    devices = {parameter.device.type for parameter in model.parameters()} - {"cpu"}
    if devices:
        raise UsageError(
            f"latency is measured on the CPU, this model is on {', '.join(sorted(devices))}",
            advice="move it with .cpu(), or take another budget",
        )
    kept = store or Store()
    timer = _Timer(traced, model, batch, kept)
    args = with_rows(inputs, traced.batch, batch)
    with torch.inference_mode(), evaluating(model):
        regions = _timed(timer, analysis.regions)
        scopes = tuple(
            replace(found, regions=_timed(timer, found.regions)) for found in analysis.scopes
        )
        whole = nanoseconds(lambda: called(model, args))
    kept.save()
    return replace(analysis, regions=regions, scopes=scopes, latency=round(whole))


def _timed(timer: _Timer, items: tuple[RegionEstimate, ...]) -> tuple[RegionEstimate, ...]:
    return tuple(replace(item, region=timer.region(item.region)) for item in items)


class _Timer:
    """Times layers of one traced model at one batch size."""

    def __init__(self, traced: TracedModel, model: nn.Module, batch: int, store: Store) -> None:
        self._traced = traced
        self._ops = {op.name: op for op in traced.ops}
        self._nodes = {layer.name: layer.node for layer in traced.layers}
        self._model = model
        self._batch = batch
        self._store = store

    def region(self, region: Region) -> Region:
        """The region with its profile."""
        linear = [0.0] * len(region.classes)
        blocks: dict[tuple[int, int], dict[int, float]] = {}
        for layer in region.layers:
            if layer.role == "interior":
                times = self._interior(region, layer)
                for source in layer.sources:
                    at = blocks.setdefault((source, layer.target), {})
                    for width, spent in times.items():
                        at[width] = at.get(width, 0.0) + spent / len(layer.sources)
            else:
                ends = (layer.target,) if layer.role == "entry" else layer.sources
                channels = sum(region.sizes[index] for index in ends)
                for index in ends:
                    linear[index] += self._dense(region, layer) / channels
        between = channel_times(
            region, self._traced, self._model, batch=self._batch, store=self._store
        )
        return replace(
            region,
            profile=Profile(
                batch=self._batch,
                threads=torch.get_num_threads(),
                machine=machine(),
                linear=tuple(a + b for a, b in zip(linear, between, strict=True)),
                blocks=tuple(
                    BlockTimes(*pair, tuple(times), tuple(times.values()))
                    for pair, times in blocks.items()
                ),
            ),
        )

    def _dense(self, region: Region, layer: RegionLayer) -> float:
        return self._time(layer, region.design)

    def _interior(self, region: Region, layer: RegionLayer) -> dict[int, float]:
        """Nanoseconds per member, by member width, at about the region's own total width."""
        read = layer.reads(region.sizes) / len(layer.sources)
        total = math.sqrt(read * region.sizes[layer.target])
        found: dict[int, float] = {}
        for least in GRID:
            width = -(-least // layer.groups) * layer.groups
            if width > 2 * total and found:
                break
            members = max(round(total / width), 1)
            design = Design(members, tuple(width for _ in region.classes))
            found[width] = self._time(layer, design) / members
        return found

    def _time(self, layer: RegionLayer, design: Design) -> float:
        """Nanoseconds of one layer in one design."""
        module = self._model.get_submodule(layer.name.partition("@")[0])
        shape = self._shape(layer, design)
        members, widths = design.multiplicity, design.widths
        kind = str(module).partition("(")[2]  # strides, paddings: all that torch prints of it
        key = f"{layer.op} {layer.role} {kind} {shape} {members} x {widths}"

        def measure() -> float:
            rule = splittable_layer(layer.op)
            built, x = rule.split(module, layer, members, widths), torch.randn(shape)
            for parameter in built.parameters():
                parameter.normal_(std=0.02)
            return nanoseconds(lambda: built(x))

        return self._store.get(key, measure)

    def _shape(self, layer: RegionLayer, design: Design) -> tuple[int, ...]:
        """Shape of the layer's input at the batch, with the channels of the design."""
        op = self._ops[self._ops[self._nodes[layer.name]].inputs[0]]
        shape = [self._batch * op.shape[0] // self._traced.batch, *op.shape[1:]]
        rule = sampled_layer(layer.op)
        if layer.sources:
            members = design.multiplicity * layer.reads(design.widths)
            shape[rule.axis] = members * rule.inner(layer)
        return tuple(shape)
