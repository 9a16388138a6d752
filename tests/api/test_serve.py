"""The example server: concurrent requests of several batch sizes through a real client."""

from __future__ import annotations

import gzip
import http.client
import json
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

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]
pytest.importorskip("mlserver", reason="the extra `serve` is not installed")
triton: Any = pytest.importorskip("tritonclient.http", reason="the extra `serve` is not installed")


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
    command += ["--name", "two", "--port", str(port), "--max-body", "1"]
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
            with triton.InferenceServerClient(address) as client:
                if client.is_model_ready("two"):
                    return
        except Exception:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def ask(address: str, rows: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    given = []
    for name, array in (("rows", rows), ("shift", shift)):
        item = triton.InferInput(name, list(array.shape), "FP32")
        given.append(item.set_data_from_numpy(array, binary_data=False))
    wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in ("scores", "best")]
    with triton.InferenceServerClient(address) as client:
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
            assert (best == wanted["best"].numpy()).all() and best.shape == wanted["best"].shape


def test_metadata_is_the_files_own(served: tuple[nn.Module, str]) -> None:
    with triton.InferenceServerClient(served[1]) as client:
        about = client.get_model_metadata("two")
    ends = {item["name"]: (item["datatype"], item["shape"]) for item in about["inputs"]}
    assert ends == {"rows": ("FP32", [-1, 6]), "shift": ("FP32", [-1])}
    assert [item["datatype"] for item in about["outputs"]] == ["FP32", "INT64"]


def test_a_wrong_request_is_refused_and_the_server_lives(served: tuple[nn.Module, str]) -> None:
    address = served[1]
    with pytest.raises(Exception, match=r"invalid shape"):
        ask(address, np.zeros((2, 5), np.float32), np.zeros(2, np.float32))
    assert ask(address, np.zeros((2, 6), np.float32), np.zeros(2, np.float32))[0].shape == (2, 4)


def post(address: str, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=60)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        connection.request("POST", path, body, named)
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None
    except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        return 413, None
    finally:
        connection.close()


def infer(address: str, **changes: Any) -> tuple[int, Any]:
    rows = {"name": "rows", "datatype": "FP32", "shape": [2, 6], "data": [0.5] * 12} | changes
    shift = {"name": "shift", "datatype": "FP32", "shape": [rows["shape"][0]], "data": [0, 0]}
    if rows["shape"][0] == 0:
        shift["data"] = []
    body = json.dumps({"inputs": [rows, shift]}).encode()
    return post(address, "/v2/models/two/infer", body)


def test_an_empty_batch_is_answered(served: tuple[nn.Module, str]) -> None:
    status, reply = infer(served[1], shape=[0, 6], data=[])
    assert status == 200
    assert reply["outputs"][0]["shape"] == [0, 4]  # runtimes' ArgMax of nothing has another shape


def test_outputs_have_the_shapes_that_the_metadata_say(served: tuple[nn.Module, str]) -> None:
    status, reply = infer(served[1])
    assert status == 200
    assert [item["shape"] for item in reply["outputs"]] == [[2, 4], [2]]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": [None] * 12},
        {"data": ["0.5"] * 12},
        {"data": [0.5] * 11},
        {"data": [[0.5] * 6, [0.5] * 5]},
        {"data": [True] * 12},
        {"data": {"a": 1}},
        {"data": [10**400] * 12},
        {"shape": [2, 5]},
        {"shape": [2, 6, 1]},
        {"shape": [2, -6]},
        {"shape": ["2", "x"]},
        {"datatype": "INT64"},
        {"datatype": "BYTES"},
        {"datatype": "FP128"},
        {"name": "other"},
        {"name": "shift"},
    ],
)
def test_client_faults_are_the_clients(served: tuple[nn.Module, str], changes: Any) -> None:
    status, reply = infer(served[1], **changes)
    assert status in (400, 422), reply
    assert infer(served[1])[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 9000, b"{}"])
def test_bodies_that_are_no_requests(served: tuple[nn.Module, str], body: bytes) -> None:
    status, _ = post(served[1], "/v2/models/two/infer", body)
    assert status in (400, 422)


def test_models_are_not_unloaded_from_outside(served: tuple[nn.Module, str]) -> None:
    for verb in ("unload", "load"):
        assert post(served[1], f"/v2/repository/models/two/{verb}", b"{}")[0] == 403
    assert post(served[1], "/v2/models/two/infer_stream", b"{}")[0] == 404
    assert infer(served[1])[0] == 200


def test_bodies_are_limited(served: tuple[nn.Module, str]) -> None:
    path, huge = "/v2/models/two/infer", b" " * (3 * 2**20)
    assert post(served[1], path, huge)[0] == 413
    packed = gzip.compress(huge)
    assert post(served[1], path, packed, Content_Encoding="gzip")[0] == 413
    assert post(served[1], path, packed[:-9], Content_Encoding="gzip")[0] in (400, 413)
    assert post(served[1], path, b"no gzip", Content_Encoding="gzip")[0] == 400
    assert infer(served[1])[0] == 200


def test_binary_tensors_which_are_the_clients_default(served: tuple[nn.Module, str]) -> None:
    model, address = served
    rows, shift = torch.randn(3, 6), torch.randn(3)
    given = []
    for name, tensor in (("rows", rows), ("shift", shift)):
        item = triton.InferInput(name, list(tensor.shape), "FP32")
        given.append(item.set_data_from_numpy(tensor.numpy()))
    with triton.InferenceServerClient(address) as client:
        answer = client.infer("two", given)
    with torch.no_grad():
        wanted = model(rows, shift)
    assert np.allclose(answer.as_numpy("scores"), wanted["scores"].numpy(), atol=1e-5)
    assert (answer.as_numpy("best") == wanted["best"].numpy()).all()


def test_binary_tensors_of_other_sizes(served: tuple[nn.Module, str]) -> None:
    request = {"inputs": [{"name": "rows", "datatype": "FP32", "shape": [1, 6]}]}
    for size in (4, 10**6, -1, "x"):
        request["inputs"][0]["parameters"] = {"binary_data_size": size}
        text = json.dumps(request).encode()
        header = {"Inference_Header_Content_Length": str(len(text))}
        assert post(served[1], "/v2/models/two/infer", text + b"1234" * 6, **header)[0] == 400
