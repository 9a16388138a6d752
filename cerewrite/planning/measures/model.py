"""Every measure of regions and whole models, for records and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache

from cerewrite.ir import Analysis, Design, Measures, Region
from cerewrite.planning.measures.base import MEASURES, Measure, remaining_kappas

DEFAULT = "log-variance"
"""What a plan makes small unless told otherwise (THEORY 11 has the evidence)."""


@cache
def reported() -> tuple[Measure, ...]:
    """What every analysis and plan states, whichever of them is made small.

    Example:
        >>> [measure.name for measure in reported()]
        ['nu', 'log-variance', 'leading-order', 'sign-variance']
    """
    by_field = {measure.field: measure for measure in MEASURES.values()}
    return tuple(by_field[field.name] for field in fields(Measures))


def region_measures(region: Region, design: Design) -> Measures[float]:
    """All measures of one region's design.

    Args:
        region: the region, with its sites.
        design: its members.
    """
    return Measures(*(measure.region(region.sites, design) for measure in reported()))


def model_measures(
    analysis: Analysis, designs: Mapping[str, Design] | None = None
) -> Measures[float]:
    """All measures of a model, composed from its regions and remaining layers (THEORY 4).

    They are the figures that plans compare: before and after come from the same composition,
    even where the analysis measured nu itself.

    Args:
        analysis: the model's analysis.
        designs: of the regions that change, by name.
    """
    designs = designs or {}
    kappas = remaining_kappas(analysis)
    regions = [estimate.region for estimate in analysis.regions]
    chosen = [(region, designs.get(region.name, region.design)) for region in regions]
    return Measures(
        *(
            measure.compose([measure.region_score(r.sites, at) for r, at in chosen], kappas)
            for measure in reported()
        )
    )
