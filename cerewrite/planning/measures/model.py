"""Every measure of regions and whole models, for records and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from functools import cache

from cerewrite.ir import Analysis, Design, Measures, Region
from cerewrite.planning.measures.base import MEASURES, Measure

DEFAULT = "log-variance"
"""What a plan makes small unless told otherwise (docs/theory.md, section 11 has the evidence)."""


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

    nu is that of the sites times the region's level, in log(1 + nu) (docs/theory.md, section 31).

    Args:
        region: the region, with its sites.
        design: its members.
    """
    return Measures(
        *(
            figure_of(measure, region, measure.region_score(region.sites, design))
            for measure in reported()
        )
    )


def figure_of(measure: Measure, region: Region, score: float) -> float:
    """A region's figure from the score of its sites: nu at the level that was measured.

    Args:
        measure: a registered measure.
        region: the region.
        score: of one of its designs, as the measure gives it.
    """
    return measure.figure(region.nu_level * score if measure.field == "nu" else score)


def changed_measures(
    before: Measures[float], changes: Iterable[tuple[Measures[float], Measures[float]]]
) -> Measures[float]:
    """A model's measures once some of its regions change: scores add up (docs/theory.md, eq. 22).

    Every record that shows the model starts from the analysis's own figures; nothing is composed
    a second time.

    Args:
        before: the model's measures.
        changes: per region that changes, its measures after and before.
    """
    pairs = tuple(changes)

    def changed(measure: Measure) -> float:
        score = measure.additive(measure.of(before))
        for after, own in pairs:
            score += measure.additive(measure.of(after)) - measure.additive(measure.of(own))
        return measure.figure(score)

    return Measures(*map(changed, reported()))


def model_measures(analysis: Analysis) -> Measures[float]:
    """All measures of a model, as its analysis states them; 0 for one that it cannot state."""
    stated = (measure.of(analysis.measures).value for measure in reported())
    return Measures(*(0.0 if math.isnan(value) else value for value in stated))
