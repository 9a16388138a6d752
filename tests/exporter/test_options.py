"""Half precision, axes that vary, external data, and where a file begins to differ."""

from __future__ import annotations

import copy
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cerewrite.errors import ExportError, UsageError
from cerewrite.exporter import check_parity, export_onnx
from cerewrite.exporter.inputs import ExampleInputs
from cerewrite.exporter.locate import first_difference
from cerewrite.exporter.parity import default_limit
from cerewrite.nn import BlockDiagonalLinear

pytestmark = pytest.mark.thorough


def body() -> nn.Sequential:
    """A block whose second layer is block-diagonal, with a norm before it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), BlockDiagonalLinear(16, 16, 4), nn.GELU(),
        BlockDiagonalLinear(16, 16, 4), nn.ReLU(inplace=True), nn.Linear(16, 3),
    )  # fmt: skip


class Nested(nn.Module):
    """Children of children, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.twice = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.twice(self.body(x)))


ROWS = (torch.randn(2, 6, generator=torch.Generator().manual_seed(0)),)


def corrupt(path: Path, name: str) -> None:
    """Change a weight of a written file."""
    proto = onnx.load(path)
    tensor = next(item for item in proto.graph.initializer if item.name == name)
    array = numpy_helper.to_array(tensor) + np.float32(0.5)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(proto, path)


def test_the_first_module_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = Nested(), tmp_path / "n.onnx"
    export_onnx(model, path, ROWS)
    example = ExampleInputs.of(model, ROWS)
    arguments = example.drawn(3, 0)
    assert first_difference(model, path, example, arguments, 1e-5) is None
    sound = path.read_bytes()
    for name, kind, operator in (
        ("body.0", "Linear", "Gemm"),
        ("body.2", "BlockDiagonalLinear", "MatMul"),
        ("body.4", "BlockDiagonalLinear", "MatMul"),
        ("body.6", "Linear", "Gemm"),
    ):
        path.write_bytes(sound)
        corrupt(path, f"{name}.weight")
        found = first_difference(model, path, example, arguments, 1e-5)
        assert found is not None
        assert (found.module, found.kind) == (name, kind)
        assert operator in found.operators
        assert found.relative_error > 1e-4
    assert not list(tmp_path.glob(".*"))

    from cerewrite.exporter import export

    def faulty(model: Any, draft: Path, *rest: Any, **options: Any) -> None:
        draft.write_bytes(sound)
        corrupt(draft, "body.2.weight")

    monkeypatch.setattr(export, "write_onnx", faulty)
    path.unlink()
    with pytest.raises(ExportError, match=r"first difference is at 'body\.2' \(BlockDiagonal"):
        export_onnx(model, path, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_half_precision(tmp_path: Path) -> None:
    model = body()
    before = copy.deepcopy(model.state_dict())
    record = export_onnx(model, tmp_path / "h.onnx", ROWS, float16=True)
    assert all(item.passed and item.limit == 1e-3 for item in record.parity)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    graph = onnx.load(tmp_path / "h.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer if tensor.name.endswith("weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    ends = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert ends == {onnx.TensorProto.FLOAT16}
    halved = copy.deepcopy(model).half()
    assert (default_limit(model), default_limit(halved)) == (1e-5, 1e-3)
    again = export_onnx(halved, tmp_path / "i.onnx", (ROWS[0].half(),))
    assert all(item.limit == 1e-3 for item in again.parity)
    assert (tmp_path / "h.onnx").read_bytes() == (tmp_path / "i.onnx").read_bytes()


class Images(nn.Module):
    """Two images of one size, and tokens of any number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.embed = nn.Embedding(9, 4)

    def forward(self, image: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        pooled = (self.conv(image) * mask).mean((2, 3))
        return pooled + self.embed(tokens).mean(1)


MANY = (torch.randn(2, 3, 6, 8), torch.rand(2, 1, 6, 8), torch.randint(0, 9, (2, 5)))


def test_axes_that_the_user_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = {2: "height", 3: "width"}
    axes = {"image": image, "mask": image, "tokens": [-1]}
    record = export_onnx(Images(), tmp_path / "a.onnx", MANY, dynamic_axes=axes, batches=(1, 3))
    shapes = dict(record.inputs)
    assert shapes["image"] == ("batch", 3, "height", "width")
    assert shapes["mask"] == ("batch", 1, "height", "width")
    assert shapes["tokens"] == ("batch", "tokens_1")
    assert [item.batch for item in record.parity] == [1, 3, 3]
    assert record.parity[-1].note == "height 12, width 16, tokens_1 10"
    with pytest.raises(ExportError, match="cannot run it"):
        # the planted fault: a file with fixed axes fails at another size
        export_onnx(Images(), tmp_path / "f.onnx", MANY)
        check_parity(Images(), tmp_path / "f.onnx", MANY, dynamic_axes={"image": [2], "mask": [2]})


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        ({"picture": [2]}, "no such input tensor"),
        ({"image": [4]}, "it has 4 axes"),
        ({"image": {2: "size", 3: "size"}}, "called 'size' have 6 and 8 elements"),
        ({"image": [1]}, "axis 1 is fixed in the file"),
        ({"image": [2]}, "axis 2 is fixed in the file"),
    ],
)
def test_axes_that_cannot_vary(axes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=text):
        export_onnx(Images(), tmp_path / "a.onnx", MANY, dynamic_axes=axes)
    assert list(tmp_path.iterdir()) == []


def test_external_data_of_an_earlier_export_goes_with_it(tmp_path: Path) -> None:
    path, data = tmp_path / "e.onnx", tmp_path / "e.onnx.data"
    model = nn.Linear(64, 64)
    rows = (torch.randn(2, 64),)
    export_onnx(model, path, rows, external_data=True)
    first = data.read_bytes()
    with torch.no_grad():
        model.weight.add_(1)
    export_onnx(model, path, rows, external_data=True)
    assert data.read_bytes() != first
    assert all(item.passed for item in check_parity(model, path, rows))
    export_onnx(model, path, rows)
    assert [file.name for file in tmp_path.iterdir()] == ["e.onnx"]
    # data of something else is not ours to replace
    data.write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"is no data of e\.onnx"):
        export_onnx(model, path, rows, external_data=True)
    assert data.read_bytes() == b"mine"
    assert all(item.passed for item in check_parity(model, path, rows))


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    """The limit on a file's size stands for a disk without room: a real error of the system."""
    path, model, rows = tmp_path / "x.onnx", nn.Linear(256, 256), (torch.randn(2, 256),)
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(ExportError, match="cannot be written: File too large"):
            export_onnx(model, path, rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.parametrize("batches", [(), (0,), (-1, 2)])
def test_parity_that_compares_nothing_is_refused(batches: tuple[int, ...], tmp_path: Path) -> None:
    net, x = nn.Linear(3, 2), torch.ones(2, 3)
    with pytest.raises(UsageError, match="parity at the batch sizes"):
        export_onnx(net, tmp_path / "net.onnx", (x,), batches=batches)
    assert not list(tmp_path.iterdir())
