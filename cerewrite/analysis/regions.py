"""Regions of a width graph: what may be split together, and why the rest may not (THEORY 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cerewrite.analysis.coupled import held_by_concatenation, inner_groups, torn
from cerewrite.analysis.scopes import SCOPES, group_classes, is_stream
from cerewrite.ir import (
    Layer,
    PerChannel,
    Region,
    RegionLayer,
    Rejection,
    Role,
    TracedModel,
    WidthClass,
)


def find_regions(
    traced: TracedModel, scope: str
) -> tuple[tuple[Region, ...], tuple[Rejection, ...]]:
    """Regions of a model, in execution order, and what was refused.

    At ``block`` scope a residual stream (a class that sums tie together) keeps its width; at
    ``stage`` and ``network`` scope streams are split too (see `group_classes`).

    Args:
        traced: the traced model.
        scope: ``block``, ``stage`` or ``network``.
    """
    refused = _refusals(traced, scope)
    rejections = list(refused.values())
    regions: list[Region] = []
    for classes in group_classes(traced, _free(traced, scope), scope):
        found = _region(traced, classes, scope)
        if isinstance(found, Region):
            regions.append(found)
        elif found.code == "one-hidden-layer":
            rejections.append(replace(found, advice=_wider(traced, classes, scope)))
        else:
            rejections.append(found)
    return _unambiguous(regions), tuple(dict.fromkeys(rejections))


def _refusals(traced: TracedModel, scope: str) -> dict[str, Rejection]:
    """The classes that keep their width, each with the reason."""
    found = {width.name: why for width in traced.widths for why in _refuse(width, scope)}
    found |= held_by_concatenation(traced, found)
    return {width.name: found[width.name] for width in traced.widths if width.name in found}


def _free(traced: TracedModel, scope: str) -> list[WidthClass]:
    refused = _refusals(traced, scope)
    return [width for width in traced.widths if width.name not in refused]


def _wider(traced: TracedModel, classes: Sequence[str], scope: str) -> str:
    """What to do about a region without hidden-to-hidden layer: the first scope that has one."""
    for wider in SCOPES[SCOPES.index(scope) + 1 :]:
        for group in group_classes(traced, _free(traced, wider), wider):
            if set(classes) <= set(group) and isinstance(_region(traced, group, wider), Region):
                return f"scope '{wider}' splits it with the residual stream: --scope {wider}"
    return "a gain needs a hidden-to-hidden layer; no scope offers one here"


def _unambiguous(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Regions whose names say which is which: one that is not unique yields to a class's."""
    counts = Counter(region.name for region in regions)
    return tuple(
        region if counts[region.name] == 1 else replace(region, name=region.classes[0])
        for region in regions
    )


def _refuse(width: WidthClass, scope: str) -> list[Rejection]:
    """Why a class keeps its width at a scope."""
    if width.pins:
        return [
            Rejection(width.name, pin.code, f"its width is kept: {pin.reason}", pin.advice)
            for pin in width.pins[:1]
        ]
    if scope == "block" and is_stream(width):
        return [
            Rejection(
                width.name,
                "residual-stream",
                f"{len(width.writers)} layers write this residual stream of {width.size} channels",
                "block scope keeps streams; --scope stage or network splits them",
            )
        ]
    if width.size < 2:
        return [Rejection(width.name, "one-channel", "one channel cannot be split", "widen it")]
    return []


def _region(traced: TracedModel, classes: Sequence[str], scope: str) -> Region | Rejection:
    """The region of a connected set of classes, or why it is none."""
    index = {name: i for i, name in enumerate(classes)}
    touching = [
        layer
        for layer in traced.layers
        if layer.op != "depthwise_conv" and index.keys() & {*layer.sources, layer.target}
    ]
    layers = tuple(_region_layer(layer, index) for layer in touching)
    sizes = {w.name: w for w in traced.widths}
    name = _name(layers if scope == "block" else [y for y in layers if y.role != "exit"], classes)
    if all(part.role != "interior" for part in layers):
        return Rejection(
            name,
            "one-hidden-layer",
            "one hidden layer alone gains nothing: m members of width n are exactly one layer "
            "of width m*n",
            "a gain needs a hidden-to-hidden layer",
        )
    modules: tuple[PerChannel, ...] = tuple(
        module for width in classes for module in sizes[width].modules
    )
    groups = torn(name, touching, modules, classes) or inner_groups(name, touching, layers)
    if isinstance(groups, Rejection):
        return groups
    multiplicity, inner = groups
    return Region(
        name=name,
        scope=scope,
        classes=tuple(classes),
        sizes=tuple(sizes[c].size for c in classes),
        multiplicity=multiplicity,
        layers=tuple(replace(part, groups=own) for part, own in zip(layers, inner, strict=True)),
        modules=modules,
    )


def _region_layer(layer: Layer, index: dict[str, int]) -> RegionLayer:
    sources = tuple(index[name] for name in layer.sources if name in index)
    target = index.get(layer.target or "", -1)
    role: Role = "entry" if not sources else "exit" if target < 0 else "interior"
    return RegionLayer(
        name=layer.name,
        op=layer.op,
        role=role,
        sources=sources,
        target=target,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=layer.kernel,
        positions=layer.positions,
        bias=layer.bias,
    )


def _name(layers: Sequence[RegionLayer], classes: Sequence[str]) -> str:
    """The module that holds all of a region's layers, else its first class."""
    shared = []
    for parts in zip(*(layer.name.split(".") for layer in layers), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or classes[0]
