"""Timing: turns are taken, refusals are records, models are left as they were."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.ir import Timing
from cerewrite.timing import bench, interleave

pytestmark = pytest.mark.xdist_group("clock")


def test_actions_take_turns_and_a_slow_one_shows() -> None:
    order: list[str] = []

    def action(name: str, seconds: float) -> Any:
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    fast, slow = interleave([action("fast", 0.002), action("slow", 0.02)], runs=6, warm=1)
    assert fast.runs == slow.runs == 6
    assert 2 < slow.median / fast.median < 20
    assert Counter(order)["slow"] == 1 + 1 + 6
    blocks = [name for i, name in enumerate(order[4:]) if i == 0 or name != order[3 + i]]
    assert blocks.count("slow") >= 3, "the actions did not take turns"


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 4))


@pytest.mark.thorough
def test_engines_and_batches_in_order_and_models_as_before() -> None:
    before, after = net(512).train(), net(4).eval()
    found = bench(before, after, (torch.randn(2, 8),), batches=[1, 64], runs=5)
    assert [(t.engine, t.batch) for t in found] == [
        ("eager", 1), ("eager", 64), ("onnxruntime", 1), ("onnxruntime", 64),
        ("step", 1), ("step", 64),
    ]  # fmt: skip
    assert all(t.original > 0 and t.rewritten > 0 and t.runs == 5 and not t.refused for t in found)
    assert all(module.training for module in before.modules())
    assert not any(module.training for module in after.modules())


def test_wider_is_slower() -> None:
    (timing,) = bench(
        net(8192), net(8), {"input": torch.randn(2, 8)}, engines=["eager"], batches=[256]
    )
    assert timing.ratio < 0.8


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    found = bench(
        net(4), net(4), (torch.randn(2, 8),), engines=["eager"], batches=[1], thread_counts=[1, 2]
    )
    assert [timing.threads for timing in found] == [1, 2]
    assert torch.get_num_threads() == before


class Sorting(nn.Module):
    """A forward that depends on values: what runs PyTorch runs it, no ONNX file does."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x + 1


@pytest.mark.thorough
def test_an_engine_that_cannot_run_the_model_says_why() -> None:
    x = torch.ones(2, 3)
    eager, runtime, step = bench(Sorting(), Sorting(), (x,), batches=[2], runs=5)
    assert eager.original > 0 and not eager.refused
    assert runtime.refused.startswith("no ONNX file:") and runtime.ratio == 0.0
    assert step.engine == "step" and step.original > 0 and not step.refused


@pytest.mark.slow
def test_compiled() -> None:
    (timing,) = bench(net(64), net(8), (torch.randn(2, 8),), engines=["compile"], batches=[4])
    assert timing.original > 0 or "torch.compile fails" in timing.refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engines": ["eagre"]}, "unknown engine 'eagre'"),
        ({"engines": []}, "nothing to measure"),
        ({"batches": [0]}, "nothing to measure"),
        ({"runs": 0}, "nothing to measure"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        bench(net(4), net(4), (torch.randn(2, 8),), **options)
    assert caught.value.advice


def test_ratio_of_a_record() -> None:
    assert Timing("eager", 1, 1, 0.2, 0.0, 0.3, 0.0, 5).ratio == pytest.approx(1.5)
