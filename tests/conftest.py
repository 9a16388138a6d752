"""Settings and fixtures that every test may use."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cerewrite.planning.budgets.held import HELD
from cerewrite.timing import between, timer

# Made afresh for every run, the same examples every time; `make test-slow` explores others.
hypothesis.settings.register_profile("repeat", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeat")

torch.set_num_threads(1)  # the networks are tiny: threads would wait for each other only


class TorchRandom:
    """torch's generator, which hypothesis seeds before every example."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH = TorchRandom()  # hypothesis keeps no reference of its own
hypothesis.register_random(TORCH)

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


def seed(name: str) -> None:
    """What is drawn under a name depends on the name, not on what ran before in the process."""
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):
        seed(collector.name)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed(item.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", action="store_true", help="write the golden files anew; run their tests only"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("golden"):
        items[:] = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
    items.sort(key=lambda item: item.path.name != "test_lint.py")  # mypy takes longest: first


@pytest.fixture(scope="session", autouse=True)
def onnx_functions() -> Iterator[None]:
    """Read once: torch reads them anew for every export, which is half of a small one's time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(read))
        yield


Golden = Callable[[Path, str], str]


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Golden:
    """What a golden file holds; with ``--golden`` the given text is written to it first."""

    def read(path: Path, text: str) -> str:
        if pytestconfig.getoption("golden"):
            path.write_text(text, encoding="utf-8")
        return path.read_text(encoding="utf-8")

    return read


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured times go to a folder of the tests."""
    monkeypatch.setenv("CEREWRITE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module", autouse=True)
def nothing_held() -> Iterator[None]:
    """Costs are held in tests marked ``held`` only.

    The other tests' networks are so small that their training step is overhead, which members
    add to: next to no plan would be left to rewrite, and which ones would depend on the clock.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cerewrite.planning.budgets.held.HELD", ())
        yield


@pytest.fixture(autouse=True)
def held_as_for_users(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `nothing_held` took away, where a test is marked ``held``."""
    if "held" in request.keywords:
        monkeypatch.setattr("cerewrite.planning.budgets.held.HELD", HELD)


def counted(action: Callable[[], object], *, quick: bool = False) -> float:
    """Nanoseconds on a machine that is never busy: 100 per call, and 1 for every 10 FLOPs."""
    with FlopCounterMode(display=False) as counter:
        action()
    return 100.0 + counter.get_total_flops() / 10.0


@pytest.fixture
def counted_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Latency profiles count operations instead of timing them; others find no counted times."""
    monkeypatch.setenv("CEREWRITE_CACHE", str(tmp_path / "counted"))
    for module in (timer, between):
        monkeypatch.setattr(module, "nanoseconds", counted)


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
