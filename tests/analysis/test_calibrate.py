"""A composition brought to a measured level."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cerewrite.analysis.calibrate import composed, level_factor, nu_level, rescaled
from cerewrite.ir import Design
from cerewrite.planning.measures import region_measures
from tests.planning.builders import chain_region

REGION = chain_region("r", [16, 12, 16], 8, 4)


@pytest.mark.parametrize("measured", [1e-3, 0.2, 3.0])
def test_the_factor_reaches_the_level(measured: float) -> None:
    rest = [0.02, 0.0]
    factor = level_factor(measured, [REGION], rest)
    assert composed([REGION], rest, factor) == pytest.approx(measured, rel=1e-9)
    same = region_measures(rescaled(REGION, factor), REGION.design).log_variance
    assert same < measured


def test_nothing_to_bring_to_a_level() -> None:
    assert level_factor(0.3, [], []) == 1.0
    assert level_factor(0.0, [REGION], []) == 1.0


def test_a_level_of_nu_is_an_exponent_on_every_design() -> None:
    """Ratios of log(1 + nu) between designs stay, so that plans by nu do too."""
    own = region_measures(REGION, REGION.design).nu
    level = nu_level(2 * own, own)
    region = replace(REGION, nu_level=level)
    assert region_measures(region, REGION.design).nu == pytest.approx(2 * own)
    for design in (Design(4, (8, 8, 8)), Design(64, (2, 2, 2))):
        plain, levelled = (region_measures(one, design) for one in (REGION, region))
        assert 1 + levelled.nu == pytest.approx((1 + plain.nu) ** level)
        assert levelled.log_variance == plain.log_variance
