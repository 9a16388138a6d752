"""The memory budget: its formula against what autograd saves, before and after a split."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import cerewrite
from cerewrite import ir
from cerewrite.analysis.kept import COPIES
from cerewrite.errors import InfeasibleBudgetError, PlanError, UsageError
from cerewrite.ir import Design
from cerewrite.planning import check_plan
from cerewrite.planning.budgets import batches_for, planned_cost, region_cost, resolve_budgets
from tests import models
from tests.planning import builders

BATCH = 8
KEPT = ir.SavedActivations(32, 4, (100, 8), 12)


def held(model: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct storages that autograd saves, parameters and buffers left out."""
    model = copy.deepcopy(model).train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)
    assert output.requires_grad
    return sum(t.untyped_storage().nbytes() for at, t in seen.items() if at not in own)


def normed(norm: type[nn.Module]) -> nn.Sequential:
    parts = [nn.Linear(7, 64), norm(64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 64), norm(64)]
    return nn.Sequential(*parts, nn.Tanh(), nn.Linear(64, 3))


CASES = {
    "mlp": (lambda: models.chain([48, 48, 48], bias=True), (7,), 0.01),
    "batch-norm": (lambda: models.ResidualNet(width=16), (3, 8, 8), 0.01),
    "rms-norm": (lambda: normed(nn.RMSNorm), (7,), 0.01),
    "zoo-of-modules": (models.plain_cnn, (3, 8, 8), 0.02),
}


@pytest.mark.parametrize("name", CASES)
def test_the_formula_is_what_autograd_saves(name: str) -> None:
    torch.manual_seed(0)
    make, shape, tolerance = CASES[name]
    model, x = make(), torch.randn(BATCH, *shape)
    analysis = cerewrite.analyze(
        model, torch.randn(2, *shape), gain="he", memory_batch=BATCH, estimator="analytic"
    )
    copies = 4 * COPIES
    values = analysis.memory - copies * analysis.params
    assert values == pytest.approx(held(model, x), rel=tolerance)
    for budget, fixed in (("memory=0.8x", {}), ("memory=3x", {analysis.regions[0].name: "4x8"})):
        if name == "zoo-of-modules" and fixed:
            continue  # its classes differ in what they may be
        plan = cerewrite.plan(analysis, budget=budget, fixed=fixed)
        assert plan.splits
        built = cerewrite.apply(plan, model)
        params = sum(p.numel() for p in built.parameters())
        assert params == plan.planned.params
        counted = planned_cost(plan, plan.budgets[0])
        assert counted <= plan.budgets[0].limit
        assert counted - copies * params == pytest.approx(held(built, x), rel=tolerance)


def test_a_layer_norm_is_counted_as_it_is_and_as_what_takes_its_place() -> None:
    torch.manual_seed(0)
    model, x = normed(nn.LayerNorm), torch.randn(BATCH, 7)
    analysis = cerewrite.analyze(model, x, gain="he", memory_batch=BATCH, estimator="analytic")
    assert analysis.memory - 12 * analysis.params == held(model, x)
    kept = analysis.regions[0].region.kept
    assert kept is not None and kept.spared == 2 * 4 * 64
    equal = cerewrite.plan(analysis, budget=["params=3x", "memory"])
    made = cerewrite.apply(equal, model)
    whole = 12 * sum(p.numel() for p in made.parameters()) + held(made, x)
    assert equal.splits
    assert 0.95 * analysis.memory < whole == planned_cost(equal, equal.budgets[1])
    assert whole <= analysis.memory == 12 * analysis.params + held(model, x)
    plan = cerewrite.plan(analysis, fixed={analysis.regions[0].name: "4x16"}, budget="memory")
    built = cerewrite.apply(plan, model)
    counted = planned_cost(plan, plan.budgets[0])
    assert counted - 12 * plan.planned.params == held(built, x)


def test_the_batch_scales_values_and_not_parameters() -> None:
    model, x = models.chain([48, 48, 48]), torch.randn(2, 7)
    one, eight = (
        cerewrite.analyze(model, x, memory_batch=b, estimator="analytic").memory for b in (1, 8)
    )
    params = 12 * sum(p.numel() for p in model.parameters())
    assert eight - params == 8 * (one - params)
    with pytest.raises(UsageError, match="training at batch 0"):
        cerewrite.analyze(model, x, memory_batch=0, estimator="analytic")


def kept_region() -> ir.Region:
    return dataclasses.replace(builders.chain_region("net", (64, 64), 8, 4), kept=KEPT)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 50))
def test_it_is_a_polynomial(first: int, second: int, members: int) -> None:
    region = kept_region()
    params = region_cost("params", region, Design(members, (first, second)))
    values = members * (100 * first + 8 * second + 12)
    assert (
        region_cost("memory", region, Design(members, (first, second))) == 12 * params + 32 * values
    )


def test_units_requests_and_what_they_need() -> None:
    analysis = dataclasses.replace(builders.analysis_of([kept_region()]), memory=2_000_000)
    texts = {"0.8x": 1.6e6, "2GB": 2e9, "3.5MB": 3.5e6, "700kB": 7e5, "9B": 9, "2M": 2e6}
    for text, limit in texts.items():
        (budget,) = resolve_budgets(f"memory={text}", analysis)
        assert (budget.limit, budget.before) == (limit, 2_000_000)
    with pytest.raises(UsageError, match="unknown unit 'GiB'") as caught:
        resolve_budgets("memory=1GiB", analysis)
    assert "GB" in caught.value.advice
    assert resolve_budgets("params", analysis)[0].before == 0
    assert batches_for(["params", "memory=1GB"])["memory_batch"] == 32
    assert batches_for("memory=1GB", memory=8)["memory_batch"] == 8
    assert batches_for("params,latency=2ms")["memory_batch"] == 32
    plain = builders.analysis_of([builders.chain_region("net", (64, 64), 8, 4)])
    with pytest.raises(UsageError, match="training batch"):
        resolve_budgets("memory", plain)
    with pytest.raises(UsageError, match="no training batch"):
        region_cost("memory", plain.regions[0].region, Design(1, (64, 64)))


def test_an_edited_plan_that_holds_too_much_is_refused() -> None:
    model, x = models.chain([48, 48, 48]), torch.randn(2, 7)
    analysis = cerewrite.analyze(model, x, memory_batch=32, estimator="analytic")
    with pytest.raises(InfeasibleBudgetError, match="bytes of training"):
        cerewrite.plan(analysis, budget="memory=1kB")
    plan = cerewrite.plan(analysis, budget="memory=0.8x")
    check_plan(plan)
    low = dataclasses.replace(plan.budgets[0], limit=plan.budgets[0].limit / 2)
    with pytest.raises(PlanError, match="memory, more than its budget"):
        check_plan(dataclasses.replace(plan, budgets=(low,)))


def test_regions_alike_but_for_what_they_keep_are_planned_apart() -> None:
    kept = (ir.SavedActivations(32, 4, (4000, 4)), ir.SavedActivations(32, 4, (4, 4000)))
    regions = [
        dataclasses.replace(builders.chain_region(name, (64, 64), 8, 4), kept=each)
        for name, each in zip("ab", kept, strict=True)
    ]
    total = sum(region_cost("memory", y, Design(1, y.widths)) for y in regions)
    analysis = dataclasses.replace(builders.analysis_of(regions), memory=total)
    plan = cerewrite.plan(
        analysis, budget=["params=3x", "memory=0.9x"], measure="nu", allow="all", widths="free"
    )
    spent = planned_cost(plan, plan.budgets[1])
    assert 0.85 * total < spent <= plan.budgets[1].limit
    first, second = (split.widths for split in plan.splits)
    assert first[0] < first[1] and second[0] > second[1]
    check_plan(plan)
