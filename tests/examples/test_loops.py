"""A rewritten model in the loops that people train with, in short settings."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks.zoo.sources import torchvision_models
from examples.loops import plain
from tests.conftest import ROOT

RIGHT = 0.8  # a tenth is chance


@pytest.mark.thorough
def test_plain_loop_and_a_checkpoint() -> None:
    assert plain.main(epochs=3) > RIGHT


@pytest.mark.thorough
def test_autocast() -> None:
    assert plain.main(epochs=3, half=True) > RIGHT


@pytest.mark.thorough
def test_compiled_by_graph() -> None:
    assert plain.main(epochs=3, backend="aot_eager") > RIGHT


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_to_code() -> None:
    assert plain.main(epochs=3, backend="inductor") > RIGHT


@pytest.fixture
def torchvision() -> None:
    """Frameworks import torchvision where it is; its Python part alone lacks its operators."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        torchvision_models()
    except ImportError:
        pass


@pytest.mark.thorough
@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("with_lightning", ["lightning"]),
        ("with_trainer", ["transformers", "accelerate"]),
        ("with_timm", ["timm"]),
    ],
)
def test_frameworks(name: str, needs: list[str]) -> None:
    for package in needs:
        pytest.importorskip(package, reason=f"the example needs {package}")
    assert importlib.import_module(f"examples.loops.{name}").main(epochs=3) > RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("further", [[], ["--sharded"]], ids=["replicated", "sharded"])
def test_two_processes(further: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "examples.loops.with_torchrun", "--epochs", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *further], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"accuracy: ([\d.]+)", done.stdout)
    assert found is not None and float(found.group(1)) > RIGHT
