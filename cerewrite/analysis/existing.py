"""Members that a model has already, whether a plan may change them or not.

docs/theory.md, eq. 24.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cerewrite.ir import Design, Region, TracedModel, bundles
from cerewrite.planning.measures import MEASURES


def existing_members(
    traced: TracedModel, regions: Sequence[Region], scope: str
) -> tuple[Region, ...]:
    """Existing groups outside of all regions, without layers: members that no plan changes.

    Args:
        traced: the traced model.
        regions: what may be split.
        scope: the scope that they were found at.
    """
    taken = {name for region in regions for name in region.classes}
    sizes = {width.name: width.size for width in traced.widths}
    return tuple(
        Region(
            name=bundle.classes[0],
            scope=scope,
            classes=bundle.classes,
            sizes=tuple(sizes[name] for name in bundle.classes),
            multiplicity=bundle.groups,
            layers=(),
            modules=(),
        )
        for bundle in bundles(traced)
        if taken.isdisjoint(bundle.classes)
    )


def inner_bundles(traced: TracedModel, region: Region) -> dict[str, tuple[int, str]]:
    """Existing groups inside a region's members, by class: their number and their common name."""
    return {
        name: (bundle.groups, bundle.classes[0])
        for bundle in bundles(traced)
        for name in bundle.classes
        if name in region.classes and bundle.groups != region.multiplicity
    }


def inflated(nu: float, regions: Sequence[Region]) -> float:
    """The nu of existing groups from that of the same units without groups.

    ``1 + nu`` is multiplied by ``(1 + nu of the members) / (1 + nu of one wide member)``.

    Args:
        nu: as if every region were one member without groups.
        regions: regions and other existing members, with their sites.

    Example:
        >>> inflated(0.25, ())
        0.25
    """
    measure, log = MEASURES["nu"], math.log1p(nu)
    for region in regions:
        wide = tuple(replace(site, groups=1) for site in region.sites)
        log += measure.region_score(region.sites, region.design)
        log -= measure.region_score(wide, Design(1, region.sizes))
    return measure.figure(log)
