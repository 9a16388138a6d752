"""Laws and messages of `make_plan`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

import cerewrite
from cerewrite import planning
from cerewrite.errors import InfeasibleBudgetError, PlanError, UsageError
from cerewrite.ir import Analysis, Plan, Rejection, dumps, loads
from cerewrite.planning import check_plan
from tests.conftest import Golden
from tests.planning.builders import analysis_of, chain_region, mlp, random_analysis, resnet, vgg16
from tests.planning.builders import plan_freely as make_plan

GOLDEN = Path(__file__).parent / "golden_plan.json"
RESNET = resnet()


def designs(plan: Plan) -> list[tuple[int, tuple[int, ...]]]:
    return [(split.multiplicity, split.widths) for split in plan.splits]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("analysis", "budget"),
    [
        (RESNET, "params"),
        (RESNET, "params=0.5x"),
        (RESNET, "flops"),
        (vgg16(), "params"),
        (vgg16(), "flops=0.7x"),
        (mlp([96] * 6), "params"),
        (mlp([64] * 16), "params=2x"),
    ],
)
def test_real_shapes_fill_their_budget(analysis: Analysis, budget: str) -> None:
    plan = make_plan(analysis, budget=budget)
    check_plan(plan)
    limit = plan.budgets[0].limit
    assert 0.99 * limit <= getattr(plan.planned, plan.budgets[0].cost) <= limit
    assert 0.0 <= plan.gap < 0.005
    assert plan.planned.nu < plan.baseline.nu or "0." in budget


@pytest.mark.thorough
def test_several_budgets_hold_together() -> None:
    plan = make_plan(RESNET, budget=["params=0.8x", "flops"])
    assert plan.planned.params <= 0.8 * RESNET.params
    assert plan.planned.flops <= RESNET.flops
    assert plan.planned.nu < plan.baseline.nu
    assert plan.gap < 0.005
    assert [name for name, _, _ in plan.feasible] == ["params", "flops"]


def test_dual_spends_less_at_no_greater_nu() -> None:
    plan = make_plan(RESNET, objective="dual")
    assert plan.planned.params < 0.9 * RESNET.params
    assert plan.planned.log_variance <= plan.baseline.log_variance * (1.0 + 1e-9)
    assert plan.gap < 0.005


@pytest.mark.thorough
def test_dual_keeps_the_limits_too() -> None:
    plan = make_plan(RESNET, budget=["params", "flops=0.5x"], objective="dual")
    assert plan.planned.flops <= 0.5 * RESNET.flops
    with pytest.raises(InfeasibleBudgetError, match="at the baseline's nu"):
        make_plan(RESNET, budget="params=0.21x", objective="dual")


@pytest.mark.parametrize("seed", range(20))
def test_a_bigger_budget_never_gives_a_larger_nu(seed: int) -> None:
    analysis = random_analysis(seed, size=3)
    found = [
        make_plan(analysis, budget=f"params={share}x").planned.log_variance
        for share in (1.0, 1.05, 1.2, 1.7, 3.0)
    ]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in zip(found, found[1:]))  # noqa: B905, RUF007


@pytest.mark.thorough
def test_a_bigger_budget_never_gives_a_larger_nu_in_a_large_model() -> None:
    shares = (0.6, 0.7, 0.95, 1.0, 1.01, 1.1)
    found = [make_plan(RESNET, budget=f"params={share}x").planned.nu for share in shares]
    assert found == sorted(found, reverse=True)


@pytest.mark.thorough
def test_never_worse_than_region_by_region() -> None:
    together = make_plan(RESNET)
    alone = 0.0
    for estimate in RESNET.regions:
        plan = make_plan(analysis_of([estimate.region]))
        alone += math.log1p(plan.planned.nu)
    fixed = sum(math.log1p(y.kappa) for y in RESNET.layers if y.region is None)
    assert math.log1p(together.planned.nu) <= alone + fixed


def test_one_hidden_layer_gains_nothing() -> None:
    plan = make_plan(analysis_of([chain_region("r", [64], 32, 8)]))
    assert plan.splits == ()
    assert plan.regions == ()
    assert plan.planned == plan.baseline
    assert [item.code for item in plan.rejections] == ["best-as-it-is"]


def test_regions_without_interior_layers_are_widened_not_split() -> None:
    thin, wide = chain_region("thin", [4], 8, 8), chain_region("wide", [90], 8, 8, share=0.1)
    plan = make_plan(analysis_of([thin, wide]))
    assert {split.multiplicity for split in plan.splits} == {1}
    assert plan.splits[0].widths > (4,)


def test_a_deep_chain_is_left_alone_and_a_wide_one_split() -> None:
    assert make_plan(mlp([16] * 40), objective="dual").splits == ()
    (split,) = make_plan(mlp([256] * 4)).splits
    assert split.multiplicity > 4


def test_existing_members_are_the_original_design() -> None:
    region = chain_region("r", [128, 128], 256, 256, kernels=(1, 9, 1), multiplicity=32)
    plan = make_plan(analysis_of([region]))
    assert plan.planned.nu <= plan.baseline.nu
    assert (32, (4, 4)) not in designs(plan)


def test_constraints_bind_every_split() -> None:
    plan = make_plan(RESNET, min_width=10, channel_multiple=8, max_multiplicity=12)
    assert plan.splits
    for multiplicity, widths in designs(plan):
        assert multiplicity <= 12
        assert all(width >= 10 and width % 8 == 0 for width in widths)


def test_divisors_of_modules_bind_widths() -> None:
    region = chain_region("r", [96, 96], 128, 128, norm=2, divisor=6)
    (split,) = make_plan(analysis_of([region]), channel_multiple=4).splits
    assert all(width % 12 == 0 for width in split.widths)


def test_constraints_that_leave_no_width() -> None:
    small, large = chain_region("small", [8, 8], 64, 64), chain_region("large", [99, 99], 64, 64)
    plan = make_plan(analysis_of([small, large]), channel_multiple=100)
    assert "no-width" in {item.code for item in plan.rejections if item.where == "small"}
    with pytest.raises(PlanError, match="no width that is at least 1, a multiple of 10000"):
        make_plan(analysis_of([small, large]), channel_multiple=10_000)


@pytest.mark.parametrize("name", ["min_width", "max_multiplicity", "channel_multiple"])
def test_constraints_below_one(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is 0"):
        make_plan(RESNET, **{name: 0})


def test_an_unknown_objective() -> None:
    with pytest.raises(UsageError, match="unknown objective 'both'"):
        make_plan(RESNET, objective="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", ["params=0", "params=1k", "flops=1M"])
def test_infeasible_budgets_give_the_range(budget: str) -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"reach .* to ") as caught:
        make_plan(RESNET, budget=budget)
    request = caught.value.advice.removeprefix("the closest feasible request is ")
    plan = make_plan(RESNET, budget=request)
    cost = plan.budgets[0].cost
    assert getattr(plan.planned, cost) == plan.budgets[0].limit
    with pytest.raises(InfeasibleBudgetError):
        make_plan(RESNET, budget=f"{cost}={int(plan.budgets[0].limit) - 1}")


def test_budgets_in_conflict_give_the_closest_that_are_not() -> None:
    region = chain_region("r", (64, 8), 16, 16, kernels=(1, 1, 9), positions=(64, 1, 1), op="conv")
    analysis, asked = analysis_of([region]), ["params=2800", "flops=50000"]
    for alone in asked:
        make_plan(analysis, budget=alone, min_width=16)
    with pytest.raises(InfeasibleBudgetError, match=r"together; .* params 2,[\d]+ to") as caught:
        make_plan(analysis, budget=asked, min_width=16)
    nearest = caught.value.advice.removeprefix("the closest feasible requests are ").split(" or ")
    for text, cost in zip(nearest, ("params", "flops"), strict=True):
        plan = make_plan(analysis, budget=text, min_width=16)
        limit = next(budget.limit for budget in plan.budgets if budget.cost == cost)
        with pytest.raises(InfeasibleBudgetError):
            less = text.replace(f"{cost}={limit:.0f}", f"{cost}={limit - 1:.0f}")
            make_plan(analysis, budget=less, min_width=16)


def test_constraints_that_leave_no_width_give_the_range() -> None:
    analysis = analysis_of([chain_region("r", [32, 32], 16, 16)])
    with pytest.raises(PlanError, match=r"no width that is at least 300, .* at most 256") as caught:
        make_plan(analysis, min_width=300)
    assert "--min-width" in caught.value.advice
    make_plan(analysis, min_width=256, budget="params=99x")
    with pytest.raises(PlanError, match="a multiple of 257"):
        make_plan(analysis, channel_multiple=257)


def test_a_model_without_regions() -> None:
    refused = Rejection("fc", "one-hidden-layer", "one hidden layer", "use scope stage")
    analysis = dataclasses.replace(mlp([8]), regions=(), rejections=(refused, refused))
    with pytest.raises(PlanError, match=r"no region .*: one-hidden-layer \(2\)"):
        make_plan(analysis)


def test_a_silent_class_is_refused() -> None:
    region = chain_region("r", [64, 64], 32, 32, share=0.0)
    other = chain_region("s", [64, 64], 32, 32)
    plan = make_plan(analysis_of([region, other]))
    assert ("r", "no-correction") in {(item.where, item.code) for item in plan.rejections}
    with pytest.raises(PlanError, match="no finite-width correction"):
        make_plan(analysis_of([region]))


def test_where_nothing_starts_at_zero_a_silent_class_keeps_its_proportion() -> None:
    region = chain_region("r", [64, 32], 32, 32)
    sites = tuple(site for site in region.sites if site.width != 1)
    unseen = dataclasses.replace(region, sites=sites)
    with pytest.raises(PlanError, match="no finite-width correction"):
        make_plan(analysis_of([unseen]))
    analysis = dataclasses.replace(analysis_of([unseen]), gain="nonzero")
    (split,) = make_plan(analysis).splits
    assert split.widths[0] == 2 * split.widths[1] and split.multiplicity > 1
    silent = dataclasses.replace(analysis_of([chain_region("r", [64], 32, 32, share=0.0)]),
                                 gain="nonzero")  # fmt: skip
    with pytest.raises(PlanError, match="no finite-width correction"):
        make_plan(silent)


def test_excluded_regions_stay() -> None:
    plan = make_plan(RESNET, exclude=["layer1.*"])
    assert not any(split.region.startswith("layer1") for split in plan.splits)
    codes = {item.where: item.code for item in plan.rejections}
    assert codes["layer1.0"] == "excluded"


def test_the_analysis_s_rejections_are_kept() -> None:
    refused = Rejection("fc", "read-out", "it is the read-out", "nothing")
    plan = make_plan(dataclasses.replace(mlp([64, 64]), rejections=(refused,)))
    assert refused in plan.rejections


@pytest.mark.thorough
def test_the_same_request_gives_the_same_bytes() -> None:
    first, second = dumps(make_plan(RESNET, seed=3)), dumps(make_plan(resnet(), seed=3))
    assert first == second
    assert loads(Plan, first, source="plan.json").seed == 3


def test_golden_plan(golden: Golden) -> None:
    found = golden_request()
    expected = loads(Plan, golden(GOLDEN, dumps(found)), source=GOLDEN.name)
    check_plan(expected)
    assert designs(found) == designs(expected)
    for part in ("baseline", "planned"):
        assert getattr(found, part).nu == pytest.approx(getattr(expected, part).nu, rel=1e-9)
    rounded = [_without_floats(json.loads(dumps(plan))) for plan in (found, expected)]
    assert rounded[0] == rounded[1]


def golden_request() -> Plan:
    regions = [
        chain_region("block1", [32, 32], 64, 64, kernels=(1, 9, 1), norm=2, bias=False, share=0.5),
        chain_region(
            "block2", [64, 64], 128, 128, kernels=(1, 9, 1), norm=2, bias=False, share=0.4
        ),
        chain_region("head", [24], 128, 10, share=0.3),
    ]
    analysis = analysis_of(regions, extra_params=1000, extra_flops=4000, extra_kappas=(0.01,))
    return make_plan(analysis, budget=["params", "flops=1.1x"], seed=7)


def _without_floats(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_floats(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("analysis", "budget"),
    [(resnet((3, 8, 36, 3)), "params"), (mlp([512] * 1000), "params=4x")],
    ids=["resnet152", "mlp1000"],
)
def test_large_models_fill_their_budget(analysis: Analysis, budget: str) -> None:
    """What planning costs is in ``benchmarks/planning.py``."""
    plan = make_plan(analysis, budget=budget)
    limit = plan.budgets[0].limit
    assert 0.99 * limit <= plan.planned.params <= limit
    assert plan.planned.nu < plan.baseline.nu


@pytest.mark.thorough
def test_the_planner_and_the_verb_have_one_default_width() -> None:
    """Members of fewer than 4 channels are not looked at unless someone asks for them."""
    plan = planning.make_plan(RESNET)
    assert plan == cerewrite.plan(RESNET)
    narrow = make_plan(RESNET)
    assert min(narrow.splits[0].widths) < 4 <= min(plan.splits[0].widths)
