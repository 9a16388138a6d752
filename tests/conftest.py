"""Settings and fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("cerewrite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("cerewrite")

torch.set_num_threads(1)  # the networks are tiny: threads would wait for each other only

ROOT = Path(__file__).resolve().parent.parent

CHAIN = """
    import torch
    from torch import nn

    def build_model():
        widths = [16, 64, 64, 64, 64]
        layers = []
        for i, (n_in, n_out) in enumerate(zip(widths, widths[1:])):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 5))

    def example_inputs():
        return torch.ones(2, 16)
"""
"""A model file whose one region has four widths of 64."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured times go to a folder of the tests."""
    monkeypatch.setenv("CEREWRITE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def nothing_held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are held in tests marked ``held`` only.

    The other tests' networks are so small that their training step is overhead, which members
    add to: next to no plan would be left to rewrite, and which ones would depend on the clock.
    """
    if "held" not in request.keywords:
        monkeypatch.setattr("cerewrite.planning.budgets.request.HELD", ())


WriteModel = Callable[..., Path]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model file to the test's folder; without text, a chain that can be split."""

    def write(text: str = CHAIN, name: str = "model.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write
