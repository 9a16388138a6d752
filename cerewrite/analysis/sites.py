"""Where finite width enters a region (docs/theory.md, sections 16 and 34)."""

from __future__ import annotations

from dataclasses import replace

from cerewrite.analysis.existing import inner_bundles
from cerewrite.estimators import LayerCorrection
from cerewrite.ir import Region, Site, TracedModel

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
        if layer.target in index:
            at, units = corrections[layer.name], sum(layer.writes)
            groups, bundle = inner.get(layer.target, (1, ""))
            sites.append(
                Site(
                    layer=layer.name,
                    width=index[layer.target],
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
