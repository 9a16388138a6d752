"""The three measures of regions and whole models, for records and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cerewrite.ir import Analysis, Figures, Measures, Region, Split
from cerewrite.planning.measures.base import MEASURES, Measure

DEFAULT = "log-variance"
"""What a plan makes small unless told otherwise (docs/theory.md, section 11 has the evidence)."""

REPORTED = ("nu", "log-variance", "leading-order")
"""What every analysis and plan states, whichever of them is made small."""


def region_measures(region: Region, multiplicity: int, widths: Sequence[int]) -> Measures:
    """All measures of one region's design.

    nu is that of the sites times the region's level, in log(1 + nu) (docs/theory.md, section 31).

    Args:
        region: the region, with its sites.
        multiplicity: members, at least 1.
        widths: width of one member per class.
    """
    found = {}
    for name in REPORTED:
        score = MEASURES[name].region_score(region.sites, multiplicity, widths)
        found[MEASURES[name].field] = figure_of(MEASURES[name], region, score)
    return Measures(**found)


def figure_of(measure: Measure, region: Region, score: float) -> float:
    """A region's figure from the score of its sites: nu at the level that was measured.

    Args:
        measure: a registered measure.
        region: the region.
        score: of one of its designs, as the measure gives it.
    """
    return measure.figure(region.nu_level * score if measure.field == "nu" else score)


def changed_measures(
    before: Measures | Figures, changes: Iterable[tuple[Measures | Split, Measures]]
) -> Measures:
    """A model's measures once some of its regions change: scores add up (docs/theory.md, eq. 22).

    Every record that shows the model starts from the analysis's own figures; nothing is composed
    a second time.

    Args:
        before: the model's measures.
        changes: per region that changes, its measures after and before.
    """
    found = {}
    pairs = tuple(changes)
    for name in REPORTED:
        field = MEASURES[name].field
        score = MEASURES[name].score_of(getattr(before, field))
        for after, own in pairs:
            score += MEASURES[name].score_of(getattr(after, field))
            score -= MEASURES[name].score_of(getattr(own, field))
        found[field] = MEASURES[name].figure(score)
    return Measures(**found)


def model_measures(analysis: Analysis) -> Measures:
    """All measures of a model, as its analysis states them; 0 for one that it cannot state."""
    stated = (analysis.nu, analysis.log_variance, analysis.leading_order)
    values = (0.0 if math.isnan(estimate.value) else estimate.value for estimate in stated)
    return Measures(*values)
