"""Profiles: what is timed, what is remembered, and that forecasts follow what was timed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import timing
from cerewrite.analysis import analyze
from cerewrite.errors import UsageError
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Analysis, Design, dumps, loads
from cerewrite.planning.budgets import region_cost
from cerewrite.timing import Store, timer
from tests.models import chain, plain_cnn

pytestmark = [pytest.mark.thorough, pytest.mark.xdist_group("clock")]


def profiled(model: nn.Module, x: Any, store: Store, batch: int = 4) -> Analysis:
    traced = trace(model, (x,))
    found = analyze(traced, model, (x,), gain="he", estimator="analytic")
    return timing.profile(found, traced, model, (x,), batch=batch, store=store)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "times.json")


def test_a_dense_chain(store: Store) -> None:
    model = chain([96, 96, 96]).train()
    before = copy.deepcopy(model.state_dict())
    analysis = profiled(model, torch.randn(2, 7), store)
    assert analysis.latency > 0
    region = analysis.regions[0].region
    assert region.profile is not None
    assert (region.profile.batch, region.profile.threads) == (4, 1)
    assert all(spent > 0 for spent in region.profile.linear)
    assert [(b.source, b.target) for b in region.profile.blocks] == [(0, 1), (1, 2)]
    block = region.profile.blocks[0]
    assert block.widths[0] == 1 and 96 <= block.widths[-1] <= 192
    assert loads(Analysis, dumps(analysis), source="x") == analysis
    after = model.state_dict()
    assert model.training and all(torch.equal(before[key], after[key]) for key in before)


def test_norms_and_activations_of_a_cnn_are_timed(store: Store) -> None:
    analysis = profiled(plain_cnn(), torch.randn(2, 3, 9, 9), store)
    for estimate in analysis.regions:
        profile = estimate.region.profile
        assert profile is not None
        assert len(profile.linear) == len(estimate.region.classes)
        assert min(profile.linear) > 0


class ChannelsFirst(nn.LayerNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_module_of_several_operators_is_timed_once_on_what_it_is_given(store: Store) -> None:
    convs = [nn.Conv2d(n, 12, 3, padding=1) for n in (3, 12, 12)]
    model = nn.Sequential(convs[0], ChannelsFirst(12), nn.ReLU(), *convs[1:], nn.Flatten())
    analysis = profiled(model, torch.randn(2, 3, 9, 9), store)
    (profile,) = (estimate.region.profile for estimate in analysis.regions)
    assert profile is not None and min(profile.linear) > 0


def test_wide_members_take_longer_than_narrow_ones_in_all(store: Store) -> None:
    region = profiled(chain([512, 512, 512]), torch.randn(2, 7), store, 64).regions[0].region
    dense = region_cost("latency", region, Design(1, (512, 512, 512)))
    split = region_cost("latency", region, Design(8, (64, 64, 64)))
    assert split < dense


def test_times_are_remembered(store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    model, x = chain([16, 16]), torch.randn(2, 7)
    first = profiled(model, x, store)
    assert all("threads" in key for key in json.loads((tmp_path / "times.json").read_text()))
    calls: list[object] = []
    real = timer.nanoseconds

    def counting(action: Any, **how: Any) -> float:
        calls.append(action)
        return real(action, **how)

    monkeypatch.setattr(timer, "nanoseconds", counting)
    again = profiled(model, x, Store(tmp_path / "times.json"))
    assert len(calls) == 1, "only the whole model is timed again"
    assert again.regions[0].region.profile == first.regions[0].region.profile
    profiled(model, x, Store(tmp_path / "times.json"), batch=5)
    assert len(calls) > 4, "another batch is another measurement"


def test_a_broken_or_unwritable_store_only_costs_time(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text("{not json")
    broken = Store(path)
    assert broken.get("a", lambda: 3.0) == 3.0
    broken.save()
    folder = Store(tmp_path)
    assert folder.get("a", lambda: 4.0) == 4.0
    folder.save()


def test_bad_requests(store: Store) -> None:
    with pytest.raises(UsageError, match="batch 0"):
        profiled(chain([8, 8]), torch.randn(2, 7), store, batch=0)
    model, x = chain([8, 8]), torch.randn(2, 7)
    traced = trace(model, (x,))
    found = analyze(traced, model, (x,), gain="he", estimator="analytic")
    with pytest.raises(UsageError, match="on the CPU"):
        timing.profile(found, traced, model.to("meta"), (x,), store=store)


def test_the_pipeline_profiles_on_request() -> None:
    analysis = cerewrite.analyze(
        chain([32, 32, 32]), torch.randn(2, 7), latency_batch=2, estimator="analytic"
    )
    assert analysis.latency > 0
    plan = cerewrite.plan(analysis, budget=["params", "latency=2.0x"])
    assert plan.feasible[1][0] == "latency"
