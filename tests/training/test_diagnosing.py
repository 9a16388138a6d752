"""Diagnostics watch a training and leave no trace on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.errors import UsageError
from cerewrite.training import Callback, DiagnosticMonitor, KernelMonitor
from tests.diagnostics.nets import case


def train(*, watched: bool) -> tuple[nn.Module, DiagnosticMonitor | None]:
    model, x, y, _ = case("residual_cnn")
    torch.manual_seed(5)
    monitor = None
    if watched:
        monitor = DiagnosticMonitor(model, x, y, only=["virtual-depth", "zico"], every=2)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        if monitor:
            monitor.step(loss)
    return model, monitor


def test_a_watched_training_is_the_same_training(tmp_path: Path) -> None:
    plain, _ = train(watched=False)
    model, monitor = train(watched=True)
    assert monitor is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert [reading.step for reading in monitor.readings] == [0, 2, 4]
    last = monitor.readings[-1]
    _, x, y, _ = case("residual_cnn")
    now = cerewrite.diagnose(model, x, y, draws=0, only=["virtual-depth"])
    assert last.diagnosis.value("virtual-depth", "mean") == now.value("virtual-depth", "mean")
    first = monitor.readings[0].diagnosis.value("virtual-depth", "mean")
    assert first != last.diagnosis.value("virtual-depth", "mean")
    assert monitor.readings[0].loss is None and last.loss is not None
    monitor.save(tmp_path / "readings.json")
    assert len(json.loads((tmp_path / "readings.json").read_text())) == 3


def test_both_monitors_are_callbacks() -> None:
    model, x, y, _ = case("mlp")
    for callback in (KernelMonitor(model, x, every=1), DiagnosticMonitor(model, x, y, every=1)):
        assert isinstance(callback, Callback)
        assert callback.step() is callback.readings[1]
    with pytest.raises(UsageError, match="every is 0"):
        DiagnosticMonitor(model, x, every=0)


def test_a_batch_that_the_loop_uses_again_is_not_seen() -> None:
    model, x, y, _ = case("mlp")
    monitor = DiagnosticMonitor(model, x, y, only=["gradient-norm"], every=1)
    x.zero_()
    y.zero_()
    monitor.step()
    first, second = (r.diagnosis.value("gradient-norm", "norm") for r in monitor.readings)
    assert first == second
