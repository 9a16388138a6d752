"""Nothing costs more than the original unless it is named or allowed; members keep proportions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerewrite import ir
from cerewrite.errors import UsageError
from cerewrite.ir import BlockTimes, Design, Profile, Region, SavedActivations
from cerewrite.planning import check_plan, make_plan
from cerewrite.planning.budgets import HELD, changed_cost, read_allowances, region_cost
from cerewrite.planning.measures import MEASURES
from cerewrite.planning.problem import WIDEST
from tests.planning.builders import analysis_of, chain_region, random_analysis, resnet

pytestmark = pytest.mark.held


def with_costs(analysis: ir.Analysis, *, keep: int = 40, tau: float = 1.0) -> ir.Analysis:
    """The analysis with training memory and step times of every region, made up."""

    def costed(region: Region) -> Region:
        count = len(region.classes)
        blocks = tuple(
            BlockTimes(i, i + 1, (4, 16, 64), (tau * 40.0, tau * 90.0, tau * 900.0))
            for i in range(count - 1)
        )
        profile = Profile(32, 1, "made up", (3.0,) * count, blocks)
        kept = SavedActivations(32, 4, (keep,) * count)
        return dataclasses.replace(region, kept=kept, step=profile)

    regions = tuple(dataclasses.replace(one, region=costed(one.region)) for one in analysis.regions)
    memory, step = (
        1000 + sum(region_cost(cost, y.region, y.region.design) for y in regions)
        for cost in ("memory", "step")
    )
    return dataclasses.replace(analysis, regions=regions, memory=memory, step=step)


def costs_of(plan: ir.Plan) -> dict[str, float]:
    """Every cost over the original's."""
    old, new = plan.baseline, plan.planned
    ratios = {"params": new.params / old.params, "flops": new.flops / old.flops}
    return ratios | {c: changed_cost(plan, c, before) / before for c, before in plan.originals}


@st.composite
def analyses(draw: st.DrawFn) -> ir.Analysis:
    """One to three regions of two or three classes, with all four costs."""
    regions = []
    for index in range(draw(st.integers(1, 3))):
        widths = draw(st.lists(st.sampled_from((16, 24, 32, 48, 64)), min_size=2, max_size=3))
        regions.append(
            chain_region(
                f"r{index}",
                widths,
                draw(st.integers(4, 64)),
                draw(st.integers(4, 64)),
                positions=[draw(st.sampled_from((1, 16)))] * (len(widths) + 1),
                share=draw(st.floats(0.2, 1.0)),
            )
        )
    made = analysis_of(regions, extra_params=draw(st.integers(0, 5000)))
    return with_costs(made, keep=draw(st.sampled_from((4, 40, 400))))


@settings(max_examples=25)
@given(analyses())
def test_no_held_cost_is_exceeded_and_every_split_gains(analysis: ir.Analysis) -> None:
    plan = make_plan(analysis, min_width=1)
    check_plan(plan)
    assert {budget.cost for budget in plan.budgets if budget.held} == {"flops", "memory", "step"}
    assert max(costs_of(plan).values()) <= 1.0
    measure = MEASURES[plan.measure]
    regions = {region.name: region for region in plan.regions}
    for split in plan.splits:
        region = regions[split.region]
        own = measure.region_score(region.sites, region.design)
        assert measure.region_score(region.sites, split.design) <= 0.98 * own


@pytest.mark.thorough
@settings(max_examples=15)
@given(analyses())
def test_a_bigger_allowance_never_gives_a_larger_measure(analysis: ir.Analysis) -> None:
    allowances: Sequence[Sequence[str]] = (
        (),
        ("memory=1.5x",),
        ("memory=1.5x", "step=1.5x"),
        ("memory=2x", "step=2x", "flops=2x"),
        ("all",),
    )
    found = [make_plan(analysis, min_width=1, allow=a).planned.log_variance for a in allowances]
    for less, more in itertools.pairwise(found):
        assert more <= less * (1.0 + 1e-12)


def test_an_allowance_is_used_and_stated() -> None:
    analysis = with_costs(resnet((1, 1, 1, 1)), keep=40)
    held = make_plan(analysis)
    more = make_plan(analysis, allow=["memory=2x", "step=1.5x", "flops"])
    assert more.planned.log_variance < held.planned.log_variance
    assert [(b.cost, b.text, b.held) for b in more.budgets] == [
        ("params", "params", False),
        ("memory", "memory=2x", True),
        ("step", "step=1.5x", True),
    ]
    spent = costs_of(more)
    assert 1.0 < spent["memory"] <= 2.0 and max(spent["step"], spent["flops"]) > 1.0
    assert spent["step"] <= 1.5


def test_what_is_not_known_is_not_held() -> None:
    assert {b.cost for b in make_plan(resnet((1, 1, 1, 1))).budgets} == {"params", "flops"}
    with pytest.raises(UsageError, match="needs times of training steps"):
        make_plan(resnet((1, 1, 1, 1)), allow="step=2x")


@pytest.mark.parametrize(
    ("allow", "named", "message"),
    [
        ("latency", (), "nothing holds latency"),
        ("params=2x", ("params",), "a budget limits params"),
        ("stop", (), "unknown budget 'stop'"),
        ("flops=-1x", (), "negative"),
    ],
)
def test_allowances_that_mean_nothing(allow: str, named: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_allowances(allow, named)


def test_all_leaves_nothing_held() -> None:
    assert set(read_allowances("all")) == set(HELD)
    assert [b.cost for b in make_plan(with_costs(resnet((1, 1, 1, 1))), allow="all").budgets] == [
        "params"
    ]


@pytest.mark.thorough
def test_a_target_below_what_any_design_takes_leaves_the_original() -> None:
    """Tightening a limit after timing must never end in something worse than the original."""
    from cerewrite.planning.budgets import BudgetRequest

    analysis = with_costs(resnet((1, 1, 1, 1)), tau=1.0)
    for share in (0.9, 0.5, 0.1, 1e-6):
        request = BudgetRequest.parse("step=1.0x").tightened(share)
        plan = make_plan(analysis, budget=["params", request])
        check_plan(plan)
        assert plan.planned.log_variance <= plan.baseline.log_variance
        if plan.splits:
            assert costs_of(plan)["step"] <= share
    assert plan.splits == () and plan.planned == plan.baseline


@pytest.mark.parametrize("seed", range(12))
def test_proportional_plans_equal_a_loop_over_members_and_scales(seed: int) -> None:
    analysis = random_analysis(seed, regions=1, size=4)
    (region,) = (one.region for one in analysis.regions)
    plan = make_plan(analysis, allow="all", min_width=1, min_gain=0.0, measure="nu")
    measure, widest = MEASURES["nu"], int(np.argmax(region.widths))
    own = measure.region_score(region.sites, region.design)
    room = region_cost("params", region, region.design)
    interior = any(layer.role == "interior" for layer in region.layers)
    best = own
    for n in range(1, WIDEST * max(region.widths) + 1):
        scale = n / region.widths[widest]
        row = tuple(math.floor(scale * width + 0.5) for width in region.widths)
        if min(row) < 1 or any(w > WIDEST * o for w, o in zip(row, region.widths, strict=True)):
            continue
        for members in range(1, 200 if interior else 2):
            design = Design(members, row)
            if region_cost("params", region, design) > room:
                break
            best = min(best, measure.region_score(region.sites, design))
    found = sum(measure.region_score(region.sites, s.design) for s in plan.splits) or own
    assert found == pytest.approx(best, rel=1e-12)


def test_members_keep_the_proportions_and_free_ones_need_not() -> None:
    region = chain_region("r", [64, 128, 256], 16, 16)
    analysis = analysis_of([region])
    (split,) = make_plan(analysis, allow="all").splits
    first, second, third = split.widths
    assert second in (2 * first - 1, 2 * first, 2 * first + 1)
    assert third in range(4 * first - 2, 4 * first + 3)
    free = make_plan(analysis, allow="all", widths="free")
    assert free.member_widths == "free"
    assert free.planned.log_variance < make_plan(analysis, allow="all").planned.log_variance
    with pytest.raises(UsageError, match="unknown widths 'both'"):
        make_plan(analysis, widths="both")


def test_a_gain_below_the_least_is_not_made() -> None:
    analysis = with_costs(resnet((1, 1, 1, 1)))
    plan = make_plan(analysis, allow="all", min_gain=0.95)
    assert plan.splits == ()
    assert {item.code for item in plan.rejections} == {"best-as-it-is"}
    with pytest.raises(UsageError, match=r"min_gain is 1\.0"):
        make_plan(analysis, min_gain=1.0)
