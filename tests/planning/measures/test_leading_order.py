"""The leading-order correction: a sum over sites, and what it cannot see."""

from __future__ import annotations

import numpy as np
import pytest

from cerewrite.ir import Design
from cerewrite.planning.measures import MEASURES
from tests.planning.builders import chain_sites, mlp
from tests.planning.builders import plan_freely as make_plan

MEASURE = MEASURES["leading-order"]
SITES = chain_sites(["a", "b", "c"])


def test_it_is_the_sum_of_kappas_at_total_width() -> None:
    by_hand = sum(site.coefficient / (4 * 8) for site in SITES)
    assert MEASURE.region(SITES, Design(4, [8, 8, 8])) == pytest.approx(by_hand, rel=1e-12)
    assert MEASURE.compose([by_hand], [0.25]) == pytest.approx(by_hand + 0.25)


def test_only_total_width_counts() -> None:
    assert MEASURE.region(SITES, Design(2, [16] * 3)) == pytest.approx(
        MEASURE.region(SITES, Design(32, [1] * 3))
    )


def test_it_is_nu_for_wide_members() -> None:
    nu = MEASURES["nu"].region(SITES, Design(3, [10**6] * 3))
    assert MEASURE.region(SITES, Design(3, [10**6] * 3)) == pytest.approx(nu, rel=1e-4)


def test_a_plan_by_it_takes_the_narrowest_members_allowed() -> None:
    plan = make_plan(mlp([64] * 6), measure="leading-order", min_width=8)
    widths = np.asarray(plan.splits[0].widths)
    assert (widths <= 12).all()
    assert plan.planned.leading_order < make_plan(mlp([64] * 6)).planned.leading_order
