"""The example server: concurrent requests of several batch sizes through a real client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cerewrite
from tests.conftest import ROOT

pytest.importorskip("mlserver", reason="the extra `serve` is not installed")
http: Any = pytest.importorskip("tritonclient.http", reason="the extra `serve` is not installed")


class Two(nn.Module):
    """Two inputs, two outputs, one of them integers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
        )

    def forward(self, rows: Tensor, shift: Tensor) -> dict[str, Tensor]:
        scores = self.body(rows) + shift[:, None]
        return {"scores": scores, "best": scores.argmax(-1)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[nn.Module, str]]:
    """The rewritten model and the address of a server with its ONNX file."""
    torch.manual_seed(0)
    inputs = (torch.randn(2, 6), torch.randn(2))
    model = cerewrite.convert(Two(), inputs, budget="params", estimator="analytic").model.eval()
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    cerewrite.export_onnx(model, path, inputs)
    port = free_port()
    command = [sys.executable, str(ROOT / "examples" / "serve.py"), str(path)]
    command += ["--name", "two", "--port", str(port)]
    log = (path.parent / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
    try:
        wait(f"127.0.0.1:{port}", process, path.parent / "log")
        yield model, f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(30) == 0
        log.close()


def wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with http.InferenceServerClient(address) as client:
                if client.is_model_ready("two"):
                    return
        except Exception:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def ask(address: str, rows: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    given = []
    for name, array in (("rows", rows), ("shift", shift)):
        item = http.InferInput(name, list(array.shape), "FP32")
        given.append(item.set_data_from_numpy(array, binary_data=False))
    wanted = [http.InferRequestedOutput(name, binary_data=False) for name in ("scores", "best")]
    with http.InferenceServerClient(address) as client:
        answer = client.infer("two", given, outputs=wanted)
    return answer.as_numpy("scores"), answer.as_numpy("best")


def test_concurrent_requests_of_several_batch_sizes(served: tuple[nn.Module, str]) -> None:
    model, address = served
    generator = torch.Generator().manual_seed(1)
    batches = [1, 2, 7, 32] * 4
    rows = [torch.randn(batch, 6, generator=generator) for batch in batches]
    shifts = [torch.randn(batch, generator=generator) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        pairs = zip(rows, shifts, strict=True)
        answers = [pool.submit(ask, address, x.numpy(), s.numpy()) for x, s in pairs]
        for x, s, answer in zip(rows, shifts, answers, strict=True):
            scores, best = answer.result(60)
            with torch.no_grad():
                wanted = model(x, s)
            scale = wanted["scores"].abs().max()
            assert np.abs(scores - wanted["scores"].numpy()).max() <= 1e-5 * float(scale)
            assert (best.ravel() == wanted["best"].numpy()).all()


def test_metadata_is_the_files_own(served: tuple[nn.Module, str]) -> None:
    with http.InferenceServerClient(served[1]) as client:
        about = client.get_model_metadata("two")
    ends = {item["name"]: (item["datatype"], item["shape"]) for item in about["inputs"]}
    assert ends == {"rows": ("FP32", [-1, 6]), "shift": ("FP32", [-1])}
    assert [item["datatype"] for item in about["outputs"]] == ["FP32", "INT64"]


def test_a_wrong_request_is_refused_and_the_server_lives(served: tuple[nn.Module, str]) -> None:
    address = served[1]
    with pytest.raises(Exception, match=r"two: .*[Ii]nvalid"):
        ask(address, np.zeros((2, 5), np.float32), np.zeros(2, np.float32))
    assert ask(address, np.zeros((2, 6), np.float32), np.zeros(2, np.float32))[0].shape == (2, 4)
