"""A batch of no examples: answered as by the original's file, and never the end of a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import cerewrite
import cerewrite.exporter.export as export
from cerewrite.errors import ExportError
from cerewrite.exporter import empty, parity
from cerewrite.exporter.empty import NoAnswer, answer
from tests.models import chain


def turned_product(
    path: Path, order: list[int], shape: list[Any], weight: tuple[int, ...]
) -> dict[str, Any]:
    """A file that multiplies a transposed input; returns its empty batch."""
    kind = TensorProto.FLOAT
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=order),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    ends = (
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    held = [numpy_helper.from_array(np.zeros(weight, np.float32), "w")]
    graph = helper.make_graph(nodes, "g", *ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return {"x": np.zeros([0 if isinstance(s, str) else s for s in shape], np.float32)}


@pytest.mark.parametrize(
    ("order", "shape", "weight", "wanted"),
    [
        ([1, 0, 2], ["batch", 6, 8], (6, 8, 4), (6, 0, 4)),
        ([1, 2, 0, 3], ["batch", 3, 2, 8], (3, 2, 8, 4), (3, 2, 0, 4)),
        ([0, 2, 1], ["batch", 8, 5], (8, 4), (0, 5, 4)),
    ],
)
def test_products_that_runtime_fuses_are_kept_apart(
    tmp_path: Path, order: list[int], shape: list[Any], weight: Any, wanted: Any
) -> None:
    import onnx_ir

    path = tmp_path / "m.onnx"
    feed = turned_product(path, order, shape, weight)
    with pytest.raises(NoAnswer, match=r"signal 8|broadcast|FusedMatMul"):
        answer(path, feed)

    model = onnx_ir.load(path)
    assert empty.keep_apart(model.graph) == 1
    onnx_ir.save(model, path)
    assert answer(path, feed)["y"].shape == wanted


@pytest.mark.parametrize("scope", ["block", "network"])
def test_converted_models_answer_an_empty_batch(tmp_path: Path, scope: str) -> None:
    torch.manual_seed(0)
    net, x = chain([32, 32, 32], inputs=16, outputs=4), torch.randn(2, 16)
    result = cerewrite.convert(net, x, gain="he", scope=scope, estimator="analytic")
    record = cerewrite.export_onnx(result.model, tmp_path / "m.onnx", x)
    assert [item.batch for item in record.parity] == [0, 1, 2, 7]
    found = answer(tmp_path / "m.onnx", {"input": np.zeros((0, 16), np.float32)})
    assert found["output"].shape == (0, 4)


@pytest.mark.thorough
def test_a_file_that_would_end_the_server_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x = chain([32, 32, 32], inputs=16, outputs=4), torch.randn(2, 16)
    result = cerewrite.convert(net, x, gain="he", estimator="analytic")
    monkeypatch.setattr(empty, "keep_apart", lambda graph: 0)
    with pytest.raises(ExportError, match="batch of 0 examples: the process ends with signal"):
        cerewrite.export_onnx(result.model, tmp_path / "m.onnx", x)
    assert not list(tmp_path.iterdir())


class Refuses(nn.Module):
    """No empty batch, please."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        torch._check(x.shape[0] > 0, lambda: "an empty batch")
        return self.layer(x)


def test_what_the_model_refuses_need_not_be_answered(tmp_path: Path) -> None:
    record = cerewrite.export_onnx(Refuses(), tmp_path / "m.onnx", torch.randn(2, 3))
    assert [item.batch for item in record.parity] == [1, 2, 7]


@pytest.mark.thorough
def test_no_answer_for_the_original_either_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, feed: Any) -> Any:
        raise NoAnswer("no answer", advice="none")

    monkeypatch.setattr(parity, "answer", refuse)
    torch.manual_seed(0)
    net, x = chain([32, 32, 32], inputs=16, outputs=4), torch.randn(2, 16)
    result = cerewrite.convert(net, x, gain="he", estimator="analytic")
    record = cerewrite.export_onnx(result.model, tmp_path / "m.onnx", x)
    assert [item.batch for item in record.parity] == [1, 2, 7]
    assert record.parity[0].note == "as for the original, no answer"
    monkeypatch.setattr(export, "compare_empty", lambda *args: [])
    with pytest.raises(NoAnswer):
        cerewrite.export_onnx(result.model, tmp_path / "other.onnx", x)


def test_group_norms_answer_an_empty_batch(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(1))
    record = cerewrite.export_onnx(net, tmp_path / "m.onnx", torch.randn(2, 3, 8, 8))
    assert [item.batch for item in record.parity] == [0, 1, 2, 7]
