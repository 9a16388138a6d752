"""Regions of a width graph: what may be split together, why the rest may not.

See docs/theory.md, section 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cerewrite.analysis.coupled import held_by_concatenation, inner_groups, torn
from cerewrite.analysis.scopes import SCOPES, group_classes, is_stream
from cerewrite.ir import (
    Layer,
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
    groups = dict(_groups(traced, refused, scope))
    regions = [found for found in groups.values() if isinstance(found, Region)]
    others = {c: found for c, found in groups.items() if isinstance(found, Rejection)}
    alone = [classes for classes, found in others.items() if found.code == "one-hidden-layer"]
    advice = _wider(traced, alone, scope)
    rejections = [
        replace(found, advice=advice.get(classes, found.advice))
        for classes, found in others.items()
    ]
    return _unambiguous(regions), tuple(dict.fromkeys([*refused.values(), *rejections]))


def _groups(
    traced: TracedModel, refused: Mapping[str, Rejection], scope: str
) -> Iterator[tuple[tuple[str, ...], Region | Rejection]]:
    """The sets of classes that a scope splits together; each one's region, or why it is none."""
    free = [width for width in traced.widths if width.name not in refused]
    sizes = {width.name: width for width in traced.widths}
    touching: dict[str, list[Layer]] = {}
    for layer in traced.layers:
        for name in dict.fromkeys((*layer.sources, layer.target)):
            if name is not None and layer.op != "depthwise_conv":
                touching.setdefault(name, []).append(layer)
    order = {layer.name: index for index, layer in enumerate(traced.layers)}
    for classes in group_classes(traced, free, scope):
        layers = {layer.name: layer for name in classes for layer in touching.get(name, ())}
        own = sorted(layers.values(), key=lambda layer: order[layer.name])
        yield classes, _region(own, [sizes[name] for name in classes], scope)


def _refusals(traced: TracedModel, scope: str) -> dict[str, Rejection]:
    """The classes that keep their width, each with the reason."""
    found = {width.name: why for width in traced.widths for why in _refuse(width, scope)}
    found |= held_by_concatenation(traced, found)
    return {width.name: found[width.name] for width in traced.widths if width.name in found}


def _wider(
    traced: TracedModel, groups: Sequence[tuple[str, ...]], scope: str
) -> dict[tuple[str, ...], str]:
    """What to do about groups without hidden-to-hidden layer: the first scope that has one."""
    nowhere = "a gain needs a hidden-to-hidden layer; no scope offers one here"
    advice = dict.fromkeys(groups, nowhere)
    for wider in reversed(SCOPES[SCOPES.index(scope) + 1 :] if groups else ()):
        region: dict[str, Region] = {}
        for classes, found in _groups(traced, _refusals(traced, wider), wider):
            if isinstance(found, Region):
                region |= dict.fromkeys(classes, found)
        for group in groups:
            owner = region.get(group[0])
            if owner is not None and all(region.get(name) is owner for name in group):
                advice[group] = (
                    f"scope '{wider}' splits it with the residual stream: --scope {wider}"
                )
    return advice


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
    if width.step == width.size > 1:
        return [
            Rejection(
                width.name,
                "one-head",
                f"its {width.size} channels are one head, or one key head that all query heads "
                "share: members cannot divide it",
                "give the layer several (key) heads, at least one for every member",
            )
        ]
    if width.size < 2:
        return [Rejection(width.name, "one-channel", "one channel cannot be split", "widen it")]
    return []


def _region(
    touching: Sequence[Layer], widths: Sequence[WidthClass], scope: str
) -> Region | Rejection:
    """The region of a connected set of classes, or why it is none.

    Args:
        touching: the layers that read or write them, in execution order.
        widths: the classes.
        scope: how far regions reach.
    """
    classes = tuple(width.name for width in widths)
    index = {name: i for i, name in enumerate(classes)}
    layers = tuple(_region_layer(layer, index) for layer in touching)
    name = _name(layers if scope == "block" else [y for y in layers if y.role != "exit"], classes)
    if all(part.role != "interior" for part in layers):
        return Rejection(
            name,
            "one-hidden-layer",
            "one hidden layer alone gains nothing: m members of width n are exactly one layer "
            "of width m*n",
            "a gain needs a hidden-to-hidden layer",
        )
    modules = tuple(module for width in widths for module in width.modules)
    groups = torn(name, touching, modules, classes) or inner_groups(name, touching, layers)
    if isinstance(groups, Rejection):
        return groups
    multiplicity, inner = groups
    heads = tuple(width.step for width in widths)
    return Region(
        name=name,
        scope=scope,
        classes=classes,
        sizes=tuple(width.size for width in widths),
        multiplicity=multiplicity,
        layers=tuple(replace(part, groups=own) for part, own in zip(layers, inner, strict=True)),
        modules=modules,
        heads=heads if max(heads) > 1 else (),
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
        times=layer.times,
        writes=layer.writes if target >= 0 else (1,),
        settings=layer.settings,
    )


def _name(layers: Sequence[RegionLayer], classes: Sequence[str]) -> str:
    """The module that holds all of a region's layers, else its first class."""
    shared = []
    for parts in zip(*(layer.name.split(".") for layer in layers), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or classes[0]
