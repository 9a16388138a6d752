"""Region costs are exact counts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cerewrite.errors import UsageError
from cerewrite.ir import Design, PerChannel, Region, RegionLayer
from cerewrite.planning.budgets import BUDGETS, region_cost
from cerewrite.planning.budgets.base import LARGEST
from tests.planning.builders import random_analysis, resnet, vgg16
from tests.planning.exhaustive import count


def test_counts_by_hand() -> None:
    layers = (
        RegionLayer("a", "conv", "entry", (), 0, 16, 8, 9, 100, True),
        RegionLayer("b", "conv", "interior", (0,), 1, 8, 4, 9, 25, True),
        RegionLayer("c", "conv", "exit", (1,), -1, 4, 32, 1, 25, True),
    )
    modules = (
        PerChannel("bn", "batch_norm", ("a",), 2),
        PerChannel("dw", "depthwise_conv", ("b",), 10, flops=450),
    )
    region = Region("r", "block", ("a", "b"), (8, 4), 1, layers, modules)
    m, n, k = 3, 5, 2
    weights = (9 * 16 * m * n, m * 9 * n * k, m * k * 32)
    biases = m * n + m * k + 32
    assert region_cost("params", region, Design(m, (n, k))) == (
        sum(weights) + biases + 2 * m * n + 10 * m * k
    )
    flops = 2 * (weights[0] * 100 + weights[1] * 25 + weights[2] * 25) + 450 * m * k
    assert region_cost("flops", region, Design(m, (n, k))) == flops


@pytest.mark.parametrize("cost", ["params", "flops"])
def test_tables_equal_layer_by_layer_counts(cost: str) -> None:
    draw = random.Random(0)
    for seed in range(40):
        for estimate in random_analysis(seed).regions:
            region = estimate.region
            rows = [[draw.randint(1, 40) for _ in region.sizes] for _ in range(3)]
            table = BUDGETS[cost].region(region).table(np.asarray([1, 2, 9]), np.asarray(rows))
            expected = [[count(region, m, row, cost) for m in (1, 2, 9)] for row in rows]
            assert table.tolist() == expected


def test_vgg_has_its_published_parameters() -> None:
    assert vgg16().params == 138_357_544


def test_a_bottleneck_has_its_published_parameters() -> None:
    region = resnet().regions[0].region
    assert (
        region_cost("params", region, Design(1, (64, 64)))
        == 64 * 64 + 9 * 64 * 64 + 64 * 256 + 4 * 64
    )


def test_costs_never_fall_with_members_or_widths() -> None:
    pricing = BUDGETS["flops"].region(vgg16().regions[0].region)
    rows = np.asarray([[n] * 15 for n in (1, 2, 50)])
    table = pricing.table(np.asarray([1, 2, 30]), rows)
    assert (np.diff(table, axis=0) > 0).all()
    assert (np.diff(table, axis=1) > 0).all()


def test_a_cost_beyond_int64_saturates() -> None:
    pricing = BUDGETS["flops"].region(vgg16().regions[0].region)
    table = pricing.table(np.asarray([1, 1 << 40]), np.asarray([[4000] * 15]))
    assert 0 < table[0, 0] < table[0, 1] == LARGEST


def test_an_unknown_cost_is_named() -> None:
    with pytest.raises(UsageError, match="unknown budget 'parms'"):
        region_cost("parms", resnet().regions[0].region, Design(1, (64, 64)))
