"""Threads take turns, and what is process-wide is put back whatever a forward sets."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.exporter import export_onnx
from cerewrite.runtime.alone import alone, muted, waiting
from tests.models import chain


def process() -> dict[str, Any]:
    """What belongs to the whole process."""
    return {
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "logging": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "type": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # type: ignore[union-attr]
        "random": random.getstate(),
        "errors": np.geterr(),
    }


class Leaky(nn.Module):
    """Sets all that a forward can set."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        np.seterr(all="ignore")
        found = self.net(x)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("medium")
        torch.set_grad_enabled(False)
        return found


def net() -> nn.Module:
    torch.manual_seed(0)
    return chain([32, 32, 32], inputs=16)


X = torch.ones(2, 16)


VERBS: dict[str, Callable[[nn.Module, Any], object]] = {
    "analyze": lambda model, path: cerewrite.analyze(model, X, gain="he", draws=64),
    "jackknife": lambda model, path: cerewrite.analyze(
        model, X, gain="he", estimator="jackknife", draws=8
    ),
    "convert": lambda model, path: cerewrite.convert(
        model, X, gain="he", draws=64, out=path / "out"
    ),
    "export": lambda model, path: export_onnx(model, path / "m.onnx", (X,)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_a_forward_sets_reaches_the_caller(tmp_path: Any, verb: str) -> None:
    model = Leaky(net())
    before = process()
    try:
        VERBS[verb](model, tmp_path)
    finally:
        after = process()
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.thorough
def test_two_threads_give_what_each_would_alone() -> None:
    models = [net(), chain([48, 48, 48], inputs=16)]
    before = process()
    wanted = [cerewrite.convert(model, X, gain="he", draws=64) for model in models]
    failed: list[BaseException] = []
    found: dict[int, Any] = {}

    def convert(index: int) -> None:
        try:
            found[index] = cerewrite.convert(models[index % 2], X, gain="he", draws=64)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=convert, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {name for name in before if before[name] != process()[name]} == set()
    for index, result in found.items():
        other = wanted[index % 2]
        assert result.plan == other.plan
        for name, tensor in other.model.state_dict().items():
            assert torch.equal(tensor, result.model.state_dict()[name]), name


@pytest.mark.parametrize("estimator", ["monte-carlo", "auto"])
def test_draws_in_threads_of_this_process_do_not_wait_for_ever(estimator: str) -> None:
    options = {"gain": "he", "estimator": estimator, "draws": 48}
    wanted = cerewrite.analyze(net(), X, **options).nu.value
    with ThreadPoolExecutor(2) as pool:
        found = cerewrite.analyze(net(), X, executor=pool, **options).nu.value
    assert found == wanted


def test_only_this_thread_is_muted(capsys: pytest.CaptureFixture[str]) -> None:
    other = threading.Thread(target=lambda: (print("theirs"), logging.warning("theirs too")))
    handler = logging.StreamHandler(sys.stdout)
    logging.root.addHandler(handler)
    try:
        with muted():
            print("mine")
            logging.warning("mine")
            other.start()
            other.join()
    finally:
        logging.root.removeHandler(handler)
    assert capsys.readouterr().out == "theirs\ntheirs too\n"


def test_turns() -> None:
    order: list[str] = []

    def other() -> None:
        with alone():
            order.append("other")

    thread = threading.Thread(target=other)
    with alone(), alone():
        thread.start()
        time.sleep(0.05)
        order.append("mine")
        with waiting():
            thread.join()
        order.append("mine again")
    assert order == ["mine", "other", "mine again"]
