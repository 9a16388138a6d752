"""Real networks with one hidden layer per block gain at wider scopes, at equal budget."""

from __future__ import annotations

import pytest

from benchmarks.scopes import rows
from benchmarks.zoo import torchvision_models


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny"])
def test_wider_scopes_gain_at_equal_budget(name: str) -> None:
    try:
        torchvision_models()
    except ImportError as error:
        pytest.skip(f"needs torchvision: {error}")
    found = list(rows(name, 64))
    won = dict.fromkeys(("params", "params,flops"), 1.0)
    for row in found:
        if row.plan is None:
            assert row.scope == "block"
            continue
        assert row.checks is not None and row.checks.passed
        new, old = row.plan.planned, row.plan.baseline
        assert new.params <= old.params and new.nu < old.nu
        assert row.budget == "params" or new.flops <= old.flops
        won[row.budget] = min(won[row.budget], new.nu / old.nu)
    assert won["params"] < 0.3 and won["params,flops"] < 0.8
