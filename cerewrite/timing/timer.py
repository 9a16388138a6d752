"""Time a region's layers at several widths, on tensors of the shapes that the trace saw."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from cerewrite.planning.budgets import region_cost
from cerewrite.runtime.modes import called, evaluating, modes_kept
from cerewrite.runtime.trees import with_rows
from cerewrite.timing.between import channel_times
from cerewrite.timing.calls import Forward, Timed, TrainingStep
from cerewrite.timing.clocked import nanoseconds
from cerewrite.timing.interleave import interleave
from cerewrite.timing.store import Store, machine

MOST = 0.98
"""Share of a training step that regions take at most."""

LONGEST = 0.5
"""Seconds of a whole training step beyond which it is timed on fewer examples, two or more."""


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
    timer = _Timer(traced, model, Forward(batch), kept)
    args = with_rows(inputs, traced.batch, batch)
    with torch.inference_mode(), evaluating(model):
        regions = _timed(timer, analysis.regions)
        scopes = tuple(
            replace(found, regions=_timed(timer, found.regions)) for found in analysis.scopes
        )
        whole = nanoseconds(lambda: called(model, args))
    kept.save()
    return replace(analysis, regions=regions, scopes=scopes, latency=round(whole))


def profile_step(
    analysis: Analysis,
    traced: TracedModel,
    model: nn.Module,
    inputs: Inputs,
    *,
    batch: int = 32,
    store: Store | None = None,
) -> Analysis:
    """An analysis that knows how long a training step of its model and its regions' layers takes.

    Forward and backward are timed where the model is, in the type and memory format of its
    parameters, in training mode, at the current number of threads; the optimiser is not. Times are
    the fastest of a few runs, so that other programs disturb them little. On a CPU large
    layers are timed on fewer examples than the batch, and the time is scaled.

    Args:
        analysis: the analysis.
        traced: the trace it was made from.
        model: the module; copies of it and of its layers run.
        inputs: its inputs as a tuple or a dict, batch first; rows are repeated or cut.
        batch: examples per training step.
        store: where times of layers are kept; the user's cache if not given.

    Raises:
        UsageError: if the model is on several devices or has no values, if the batch is below 1,
            or if the model cannot train on such a batch.
    """
    if batch < 1:
        raise UsageError(f"training steps at batch {batch}", advice="give a batch of 1 or more")
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1 or "meta" in devices:
        raise UsageError(
            f"training steps are timed on one device, this model is on {', '.join(devices)}",
            advice="move it to one device, give a stored profile, or allow the step to rise",
        )
    kept, kind = store or Store(), TrainingStep.of(model, batch)
    timer = _Timer(traced, model, kind, kept)
    cuda = [kind.device] if kind.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), modes_kept(model):
        whole = _whole_step(kind, traced, model, inputs)
        regions = _stepped(timer, analysis.regions, whole)
        scopes = tuple(
            replace(found, regions=_stepped(timer, found.regions, whole))
            for found in analysis.scopes
        )
    kept.save()
    return replace(analysis, regions=regions, scopes=scopes, step=round(whole))


def _whole_step(kind: TrainingStep, traced: TracedModel, model: nn.Module, inputs: Inputs) -> float:
    """Nanoseconds of the model's own training step at the batch."""

    def step(rows: int) -> Callable[[], object]:
        args = with_rows(inputs, traced.batch, rows)
        return kind.whole(model, lambda module: called(module, args))

    rows = min(kind.batch, max(2, traced.batch))
    try:
        run = step(rows)
        run()
        (first,) = interleave([run], runs=1, warm=0, least=1)
        most = min(kind.batch, max(2, int(rows * LONGEST / first.fastest)))
        run = run if most == rows else step(most)
        (sample,) = interleave([run], warm=0, runs=3 if most == rows else 5, least=3)
    except (RuntimeError, ValueError) as error:  # batch norms refuse single values so
        raise UsageError(
            f"a training step of {type(model).__name__} fails at batch {kind.batch}: {error}",
            advice="give another --step-batch, or --allow step",
        ) from error
    return 1e9 * sample.fastest * kind.batch / most


def _stepped(
    timer: _Timer, items: tuple[RegionEstimate, ...], whole: float
) -> tuple[RegionEstimate, ...]:
    """Regions with their times, scaled down where they would be more than the whole step.

    Layers that are timed alone pay for the call and for a cold cache; the ratios of their times
    are what a plan needs.
    """
    found = [replace(item.region, step=timer.times(item.region)) for item in items]
    spent = sum(region_cost("step", region, region.design) for region in found)
    scale = min(1.0, MOST * whole / spent) if spent else 1.0
    return tuple(
        replace(item, region=replace(region, step=_scaled(region.step, scale)))
        for item, region in zip(items, found, strict=True)
    )


def _scaled(profile: Profile | None, scale: float) -> Profile | None:
    if profile is None or scale == 1.0:
        return profile
    blocks = tuple(
        replace(block, nanoseconds=tuple(scale * spent for spent in block.nanoseconds))
        for block in profile.blocks
    )
    return replace(profile, linear=tuple(scale * spent for spent in profile.linear), blocks=blocks)


def _timed(timer: _Timer, items: tuple[RegionEstimate, ...]) -> tuple[RegionEstimate, ...]:
    return tuple(
        replace(item, region=replace(item.region, profile=timer.times(item.region)))
        for item in items
    )


class _Timer:
    """Times layers of one traced model at one batch size."""

    def __init__(self, traced: TracedModel, model: nn.Module, kind: Timed, store: Store) -> None:
        self._traced = traced
        self._ops = {op.name: op for op in traced.ops}
        self._nodes = {layer.name: layer.nodes for layer in traced.layers}
        self._model = model
        self._kind = kind
        self._store = store

    def times(self, region: Region) -> Profile:
        """The times of one region's layers."""
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
                    linear[index] += self._time(layer, region.design) / channels
        between = channel_times(
            region, self._traced, self._model, kind=self._kind, store=self._store
        )
        return Profile(
            batch=self._kind.batch,
            threads=torch.get_num_threads(),
            machine=f"{self._kind.prefix}{machine()}",
            linear=tuple(a + b for a, b in zip(linear, between, strict=True)),
            blocks=tuple(
                BlockTimes(*pair, tuple(times), tuple(times.values()))
                for pair, times in blocks.items()
            ),
        )

    def _interior(self, region: Region, layer: RegionLayer) -> dict[int, float]:
        """Nanoseconds per member, by member width, at about the region's own total width."""
        read = layer.reads(region.sizes) / len(layer.sources)
        total = math.sqrt(read * layer.written * region.sizes[layer.target])
        found: dict[int, float] = {}
        for least in self._kind.widths:
            width = -(-least // layer.groups) * layer.groups
            if width > 2 * total and found:
                break
            members = max(round(total / width), 1)
            design = Design(members, tuple(width for _ in region.classes))
            found[width] = self._time(layer, design) / members
        return found

    def _time(self, layer: RegionLayer, design: Design) -> float:
        """Nanoseconds of all calls of one layer in one design, each taken as the first."""
        module = self._model.get_submodule(layer.name.partition("@")[0])
        members, widths = design.multiplicity, design.widths
        read = layer.in_channels if layer.role == "entry" else members * layer.reads(widths)
        write = layer.out_channels if layer.role == "exit" else layer.written * widths[layer.target]
        if layer.role == "entry":
            write *= members
        work = 2.0 * layer.kernel * layer.positions * read * write
        rows = self._kind.rows(work)
        shape = self._shape(layer, design, rows)
        kind = str(module).partition("(")[2]  # strides, paddings: all that torch prints of it
        key = f"{self._kind.prefix}{layer.op} {layer.role} {kind} {shape} {members} x {widths}"
        source = self._ops[self._ops[self._nodes[layer.name][0]].inputs[0]]

        def measure() -> float:
            built = splittable_layer(layer.op).split(module, layer, members, widths)
            with torch.no_grad():
                for parameter in built.parameters():
                    parameter.normal_(std=0.02)
            action = self._kind.action(built, shape, learns=source.target != "input")
            return nanoseconds(action, quick=self._kind.quick)

        calls = len(self._nodes[layer.name])
        return self._store.get(key, measure) * calls * self._kind.batch / rows

    def _shape(self, layer: RegionLayer, design: Design, rows: int) -> tuple[int, ...]:
        """Shape of the layer's input at the batch, with the channels of the design."""
        op = self._ops[self._ops[self._nodes[layer.name][0]].inputs[0]]
        shape = [rows * op.shape[0] // self._traced.batch, *op.shape[1:]]
        rule = sampled_layer(layer.op)
        if layer.sources:
            members = design.multiplicity * layer.reads(design.widths)
            shape[rule.axis] = members * rule.inner(layer)
        return tuple(shape)
