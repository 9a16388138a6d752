"""Bring a composition of layers to a measured level (docs/theory.md, section 31)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cerewrite.ir import Region
from cerewrite.planning.measures import MEASURES

WIDEST = 1e6
"""Factors beyond which no level is sought."""
STEPS = 60
"""Bisections: the factor is found to rounding."""


def composed(regions: Sequence[Region], rest: Sequence[float], factor: float) -> float:
    """Var[log K] composed of regions and remaining layers, all corrections times a factor.

    Args:
        regions: with their sites.
        rest: kappas of the layers in no region, each at least 0.
        factor: on every rho and kappa, above 0.
    """
    measure = MEASURES["log-variance"]
    scaled = [rescaled(region, factor) for region in regions]
    scores = [measure.region_score(r.sites, r.design) for r in scaled]
    return measure.compose(scores, [factor * kappa for kappa in rest])


def rescaled(region: Region, factor: float) -> Region:
    """A region with every site's rho times a factor."""
    sites = tuple(replace(site, rho=factor * site.rho) for site in region.sites)
    return replace(region, sites=sites)


def level_factor(measured: float, regions: Sequence[Region], rest: Sequence[float]) -> float:
    """The factor on all corrections at which they compose to a measured Var[log K].

    1 where nothing composes, or no factor reaches the level.

    Args:
        measured: Var[log K] of the model, above 0.
        regions: with their sites.
        rest: kappas of the layers in no region.

    Example:
        >>> round(level_factor(math.log(3), (), [1.0]), 9)
        2.0
    """

    def at(log_factor: float) -> float:
        return composed(regions, rest, math.exp(log_factor)) - measured

    low, high = -math.log(WIDEST), math.log(WIDEST)
    if not (measured > 0 and at(low) < 0 < at(high)):
        return 1.0
    guess = math.log(measured / (at(0.0) + measured))
    low, high = max(low, guess - 0.5), min(high, guess + 0.5)
    while at(low) > 0:
        low -= 1.0
    while at(high) < 0:
        high += 1.0
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if at(middle) < 0:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


def nu_level(measured: float, composed_nu: float) -> float:
    """``log(1 + nu)`` as measured over that as composed: 1 where either is no positive number.

    Example:
        >>> round(nu_level(0.21, 0.1), 6)
        2.0
    """
    if not (0 < measured < math.inf and 0 < composed_nu < math.inf):
        return 1.0
    return math.log1p(measured) / math.log1p(composed_nu)


def nu_error(nu: float, log_variance: float, stderr: float) -> float:
    """Standard error of a nu composed at a measured Var[log K], from that of the latter.

    ``log(1 + nu)`` is taken as proportional to it.

    Example:
        >>> round(nu_error(math.expm1(0.2), 0.2, 0.02), 6)
        0.024428
    """
    return (1.0 + nu) * math.log1p(nu) * stderr / log_variance
