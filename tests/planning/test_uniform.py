"""Uniform plans against a plain loop over (m, n)."""

from __future__ import annotations

import math

import pytest

from cerewrite.errors import InfeasibleBudgetError
from cerewrite.ir import Analysis
from cerewrite.planning import check_plan
from tests.planning.builders import analysis_of, chain_region, resnet
from tests.planning.builders import plan_freely as make_plan
from tests.planning.exhaustive import count
from tests.planning.measures.composing import region_nu


def grid(analysis: Analysis, limit: float) -> list[tuple[int, int, int, float]]:
    """(m, n, params, log nu of the regions) of every uniform design within a limit."""
    regions = [estimate.region for estimate in analysis.regions]
    own = sum(count(r, r.multiplicity, r.widths, "params") for r in regions)
    found = []
    first = regions[0].widths[0]
    for n in range(1, 8 * first + 1):
        rows = [[max(1, math.floor(n * w / first + 0.5)) for w in r.widths] for r in regions]
        nus = [region_nu(r.sites, 1, row) for r, row in zip(regions, rows, strict=True)]
        for m in range(1, 400):
            params = (
                analysis.params
                - own
                + sum(count(r, m, row, "params") for r, row in zip(regions, rows, strict=True))
            )
            if params > limit:
                break
            found.append((m, n, params, sum(math.log1p(nu / m) for nu in nus)))
    return found


def small() -> Analysis:
    return analysis_of(
        [
            chain_region("a", [12, 12], 48, 48, kernels=(1, 9, 1), norm=2, share=0.5),
            chain_region("b", [24, 24], 96, 96, kernels=(1, 9, 1), norm=2, share=0.3),
        ],
        extra_params=500,
    )


def test_primal_equals_a_plain_loop() -> None:
    analysis = small()
    plan = make_plan(analysis, uniform=True, measure="nu")
    check_plan(plan)
    m, n, params, _ = min(grid(analysis, analysis.params), key=lambda item: item[3])
    assert {split.multiplicity for split in plan.splits} == {m}
    assert [split.widths for split in plan.splits] == [(n, n), (2 * n, 2 * n)]
    assert plan.planned.params == params
    assert plan.gap == 0.0


def test_dual_equals_a_plain_loop() -> None:
    analysis = small()
    plan = make_plan(analysis, uniform=True, objective="dual")
    own = math.log1p(plan.baseline.nu)
    fits = [item for item in grid(analysis, analysis.params) if item[3] <= own * (1 + 1e-12)]
    assert plan.planned.params == min(item[2] for item in fits)
    assert plan.planned.nu <= plan.baseline.nu * (1 + 1e-9)


@pytest.mark.thorough
def test_it_is_never_better_than_the_free_plan() -> None:
    analysis = resnet()
    assert make_plan(analysis).planned.nu <= make_plan(analysis, uniform=True).planned.nu


def test_widths_keep_the_stages_proportions() -> None:
    plan = make_plan(resnet(), uniform=True)
    narrow = plan.splits[0].widths[0]
    stages = {split.region[:6]: split.widths for split in plan.splits}
    assert stages == {f"layer{k + 1}": (narrow << k, narrow << k) for k in range(4)}


def test_constraints_and_refusals() -> None:
    plan = make_plan(resnet(), uniform=True, channel_multiple=8, max_multiplicity=4)
    assert all(split.multiplicity <= 4 for split in plan.splits)
    assert all(width % 8 == 0 for split in plan.splits for width in split.widths)
    analysis = small()
    regions = [estimate.region for estimate in analysis.regions]
    assert len(regions) == 2
    least = min(item[2] for item in grid(analysis, analysis.params))
    assert make_plan(analysis, uniform=True, budget=f"params={least}").planned.params == least
    with pytest.raises(InfeasibleBudgetError, match=r"uniform designs reach params [\d,]+ to"):
        make_plan(analysis, uniform=True, budget=f"params={least - 1}")
