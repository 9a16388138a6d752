"""Latency as a cost: from a profile, never falling, refused without one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerewrite import ir
from cerewrite.errors import PlanError, UsageError
from cerewrite.ir import Design
from cerewrite.planning.budgets import (
    BUDGETS,
    batches_for,
    planned_cost,
    region_cost,
    resolve_budgets,
)
from cerewrite.planning.budgets.latency import block_time
from cerewrite.planning.check import recount
from cerewrite.reporter.planned import before_and_after, request
from tests.editing import edited
from tests.planning import builders
from tests.planning.builders import plan_freely as make_plan

BLOCK = ir.BlockTimes(0, 1, (1, 4, 16, 64), (300.0, 300.0, 900.0, 14_000.0))
PROFILE = ir.Profile(1, 1, "a machine", (10.0, 7.0), (BLOCK,))


def timed_region() -> ir.Region:
    region = builders.chain_region("net", (64, 64), 8, 4)
    return dataclasses.replace(region, profile=PROFILE)


def test_one_design_by_hand() -> None:
    region = timed_region()
    assert region_cost("latency", region, Design(3, (16, 16))) == 3 * (16 * 17 + 900)
    assert region_cost("latency", region, Design(1, (128, 128))) == 128 * 17 + 4 * 14_000


@pytest.mark.thorough
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 50))
def test_it_never_falls_with_widths_or_members(first: int, second: int, members: int) -> None:
    region = timed_region()
    here = region_cost("latency", region, Design(members, (first, second)))
    assert region_cost("latency", region, Design(members + 1, (first, second))) >= here
    assert region_cost("latency", region, Design(members, (first + 1, second))) >= here
    assert region_cost("latency", region, Design(members, (first, second + 1))) >= here


def test_noise_in_the_times_is_not_believed() -> None:
    noisy = ir.BlockTimes(0, 0, (4, 8, 16), (500.0, 400.0, 900.0))
    assert block_time(noisy, np.array([4.0, 8.0, 16.0])).round(6).tolist() == [500, 500, 900]


def test_units_and_relative_limits() -> None:
    analysis = dataclasses.replace(builders.analysis_of([timed_region()]), latency=2_000_000)
    limits = {
        text: resolve_budgets(f"latency={text}", analysis)[0].limit
        for text in ("1.0x", "3ms", "250us", "1s", "5000", "0.5x")
    }
    assert limits == {
        "1.0x": 2e6, "3ms": 3e6, "250us": 2.5e5, "1s": 1e9, "5000": 5000.0, "0.5x": 1e6
    }  # fmt: skip
    with pytest.raises(UsageError, match="unknown unit 'min'") as caught:
        resolve_budgets("latency=3min", analysis)
    assert "ms" in caught.value.advice


@pytest.mark.held
def test_without_a_profile_it_is_refused() -> None:
    analysis = builders.analysis_of([builders.chain_region("net", (64, 64), 8, 4)])
    with pytest.raises(UsageError, match="measured on this machine"):
        resolve_budgets("latency", analysis)
    with pytest.raises(UsageError, match="no measured times"):
        BUDGETS["latency"].region(analysis.regions[0].region)
    assert batches_for("params,latency=2ms")["latency_batch"] == 1
    assert batches_for("params,latency=2ms", latency=8)["latency_batch"] == 8
    assert batches_for(("params", "flops"), allow=["step"]) == {
        "latency_batch": None, "memory_batch": 32, "step_batch": None
    }  # fmt: skip


def test_a_plan_states_what_was_and_is_recounted_when_edited() -> None:
    analysis = dataclasses.replace(builders.analysis_of([timed_region()]), latency=200_000)
    plan = make_plan(analysis, budget="latency=1.0x", measure="nu", min_width=4)
    (budget,), (split,) = plan.budgets, plan.splits
    assert budget.before == 200_000
    before, after = (
        region_cost("latency", timed_region(), Design(m, widths))
        for m, widths in ((1, (64, 64)), (split.multiplicity, split.widths))
    )
    assert planned_cost(plan, budget) == 200_000 + after - before <= budget.limit
    more = edited(split, multiplicity=2 * split.multiplicity)
    with pytest.raises(PlanError, match="latency, more than its budget"):
        recount(dataclasses.replace(plan, splits=(more,)))
    rows = {row[0]: row for row in before_and_after(plan).rows}
    assert rows["latency"][1] == "200 us"
    assert ("budget", "latency at most 200 us (latency=1.0x)") in request(plan).facts
