"""The capacity budget counts bits of layered threshold networks exactly."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.ir import Design, Region, RegionLayer
from cerewrite.planning.budgets import BUDGETS, region_cost
from cerewrite.planning.budgets.base import LARGEST
from cerewrite.planning.budgets.capacity import model_bits
from tests.planning.builders import random_analysis, vgg16


def chain(*sizes: int) -> Region:
    names = [f"l{i}" for i in range(len(sizes) - 1)]
    last = len(names) - 1
    layers = tuple(
        RegionLayer(
            name, "linear", "entry" if i == 0 else "exit" if i == last else "interior",
            () if i == 0 else (i - 1,), -1 if i == last else i, a, b, 1, 1, True,
        )
        for i, (name, a, b) in enumerate(zip(names, sizes[:-1], sizes[1:], strict=True))
    )  # fmt: skip
    return Region("r", "block", tuple(names[:-1]), tuple(sizes[1:-1]), 1, layers, ())


def by_hand(sizes: list[int], members: int) -> int:
    """``sum_k min(n_1..n_k) n_k n_{k+1}`` of members that share their input and their output."""
    first, *hidden, last = sizes
    bits = first * first * hidden[0] * members
    least = first
    for a, b in zip(hidden, [*hidden[1:], 0], strict=True):
        least = min(least, a)
        bits += members * least * a * b
    # The exit reads all members side by side: no more bits than the input has.
    whole = first
    for width in hidden:
        whole = min(whole, members * width)
    return bits + whole * members * hidden[-1] * last


def test_chains_by_hand() -> None:
    draw = random.Random(0)
    for _ in range(50):
        sizes = [draw.randint(1, 30) for _ in range(draw.randint(4, 7))]
        members = draw.randint(1, 6)
        design = Design(members, tuple(sizes[1:-1]))
        assert region_cost("capacity", chain(*sizes), design) == by_hand(sizes, members)


def test_one_member_is_the_published_formula() -> None:
    sizes = [9, 20, 4, 30, 5]
    expected = 9 * 9 * 20 + 9 * 20 * 4 + 4 * 4 * 30 + 4 * 30 * 5
    assert by_hand(sizes, 1) == expected
    assert region_cost("capacity", chain(*sizes), Design(1, (20, 4, 30))) == expected


def test_tables_equal_exact_counts_and_never_fall() -> None:
    draw = random.Random(1)
    members = np.asarray([1, 2, 9])
    for seed in range(20):
        for estimate in random_analysis(seed).regions:
            pricing = BUDGETS["capacity"].region(estimate.region)
            rows = np.sort([[draw.randint(1, 40) for _ in estimate.region.sizes] for _ in "abc"], 0)
            table = pricing.table(members, rows)
            assert table.tolist() == [
                [pricing.exact(Design(int(m), tuple(map(int, row)))) for m in members]
                for row in rows
            ]
            assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()


def test_a_capacity_beyond_int64_saturates() -> None:
    pricing = BUDGETS["capacity"].region(vgg16().regions[0].region)
    table = pricing.table(np.asarray([1, 1 << 40]), np.asarray([[4000] * 15]))
    assert 0 < table[0, 0] < table[0, 1] == LARGEST


def net() -> nn.Sequential:
    torch.manual_seed(0)
    sizes = (16, 64, 64, 64, 10)
    layers = [m for a, b in zip(sizes[:-1], sizes[1:], strict=True)
              for m in (nn.Linear(a, b), nn.ReLU())]  # fmt: skip
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_plan_keeps_the_budget_and_the_built_model_has_it(share: float) -> None:
    model, x = net(), torch.randn(2, 16)
    analysis = cerewrite.analyze(model, x, estimator="analytic", gain="he")
    plan = cerewrite.plan(analysis, budget=f"capacity={share}x", allow="all")
    (split,) = plan.splits
    region = analysis.regions[0].region
    before = region_cost("capacity", region, region.design)
    after = region_cost("capacity", region, split.design)
    assert plan.budgets[0].before == before == BUDGETS["capacity"].baseline(analysis)
    assert after <= share * before
    # The built model, counted layer by layer from its own trace.
    from cerewrite.frontend import tracing

    built = tracing.trace(cerewrite.apply(plan, model), (x,))
    assert sum(model_bits(built.layers).values()) == after
    assert sum(model_bits(tracing.trace(model, (x,)).layers).values()) == before


def test_a_wrong_count_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from cerewrite.planning.budgets import capacity

    true = capacity.layer_bits
    monkeypatch.setattr(
        capacity, "layer_bits", lambda w, p, *rest, **more: true(w, w, *rest, **more)
    )
    with pytest.raises(AssertionError):
        test_chains_by_hand()
