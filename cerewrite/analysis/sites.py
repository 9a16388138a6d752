"""Where finite width enters a region (docs/theory.md, sections 16 and 34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cerewrite.analysis.existing import inner_bundles
from cerewrite.estimators import LayerCorrection
from cerewrite.ir import Layer, Region, Site, TracedModel

UNIT_NORMS = frozenset({"layer_norm", "rms_norm"})
"""Modules that divide by the energy of an example's own units at one position."""


def with_sites(
    region: Region, traced: TracedModel, corrections: dict[str, LayerCorrection]
) -> Region:
    """A region with the places where finite width enters it."""
    index = {name: i for i, name in enumerate(region.classes)}
    inner = inner_bundles(traced, region)
    sites = []
    for layer in traced.layers:
        for target, share in _written(layer, region, index):
            at, units = corrections[layer.name], sum(layer.writes) / share**2
            groups, bundle = inner.get(target, (1, ""))
            sites.append(
                Site(
                    layer=layer.name,
                    width=index[target],
                    forward_share=at.forward_share,
                    backward_share=at.backward_share,
                    v_aa=at.v_aa / units,  # a channel of the class is so many units
                    v_bb=at.v_bb / units,
                    v_ab=at.v_ab / units,
                    rho=max(at.rho, 0.0),
                    c_norm=at.c_norm / units,
                    groups=groups,
                    bundle=bundle,
                )
            )
    return replace(region, sites=_with_norms(sites, region, traced))


def _written(layer: Layer, region: Region, index: Mapping[str, int]) -> list[tuple[str, float]]:
    """The classes of the region that a layer writes, each with its share of the layer's units.

    A depthwise layer writes all parts of the concatenation that it reads. An average over the
    units of all has a part's scatter in the square of that part's share.
    """
    if layer.target is not None:
        return [(layer.target, 1.0)] if layer.target in index else []
    if layer.op != "depthwise_conv":
        return []
    sizes = [(name, region.sizes[index[name]]) for name in layer.sources if name in index]
    return [(name, size / layer.out_channels) for name, size in sizes]


def _with_norms(sites: list[Site], region: Region, traced: TracedModel) -> tuple[Site, ...]:
    """Sites with the share of K in front of norms over their units, at the last of each class."""
    normed = {m.widths[0] for m in region.modules if m.op in UNIT_NORMS and len(m.widths) == 1}
    for width in traced.widths:  # norms of members that are there already pin their class
        if width.name in region.classes and any(pin.code == "member-norm" for pin in width.pins):
            normed.add(width.name)
    for name in normed:
        at = region.classes.index(name)
        own = [i for i, site in enumerate(sites) if site.width == at]
        if own:
            share = sum(sites[i].backward_share for i in own)
            sites[own[-1]] = replace(sites[own[-1]], normed=min(max(share, 0.0), 1.0))
    return tuple(sites)
