"""The three measures of regions and whole models, for records and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cerewrite.ir import Analysis, Measures, Region
from cerewrite.planning.measures.base import MEASURES, remaining_kappas

DEFAULT = "log-variance"
"""What a plan makes small unless told otherwise (THEORY 11 has the evidence)."""

REPORTED = ("nu", "log-variance", "leading-order")
"""What every analysis and plan states, whichever of them is made small."""


def region_measures(region: Region, multiplicity: int, widths: Sequence[int]) -> Measures:
    """All measures of one region's design.

    Args:
        region: the region, with its sites.
        multiplicity: members, at least 1.
        widths: width of one member per class.
    """
    found = {
        MEASURES[name].field: MEASURES[name].region(region.sites, multiplicity, widths)
        for name in REPORTED
    }
    return Measures(**found)


def model_measures(
    analysis: Analysis, designs: Mapping[str, tuple[int, Sequence[int]]] | None = None
) -> Measures:
    """All measures of a model, composed from its regions and remaining layers (THEORY 4).

    They are the figures that plans compare: before and after come from the same composition,
    even where the analysis measured nu itself.

    Args:
        analysis: the model's analysis.
        designs: members and widths of the regions that change, by name.
    """
    designs = designs or {}
    kappas = remaining_kappas(analysis)
    found = {}
    for name in REPORTED:
        measure = MEASURES[name]
        scores = []
        for estimate in analysis.regions:
            region = estimate.region
            own = (region.multiplicity, region.widths)
            scores.append(measure.region_score(region.sites, *designs.get(estimate.name, own)))
        scores += [
            measure.region_score(r.sites, r.multiplicity, r.widths) for r in analysis.members
        ]
        found[measure.field] = measure.compose(scores, kappas)
    return Measures(**found)
