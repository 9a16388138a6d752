"""The model repository: its configuration parsed, and compared with the ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import CliRunner
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from torch import Tensor, nn

import cerewrite
from cerewrite.cli import main
from cerewrite.errors import ExportError, OutputError
from cerewrite.exporter import triton_config
from tests.conftest import WriteModel

pytestmark = pytest.mark.thorough

TYPES = {
    "TYPE_BOOL": onnx.TensorProto.BOOL,
    "TYPE_INT64": onnx.TensorProto.INT64,
    "TYPE_FP16": onnx.TensorProto.FLOAT16,
    "TYPE_FP32": onnx.TensorProto.FLOAT,
}
Field = descriptor_pb2.FieldDescriptorProto


def message(file: Any, name: str, *fields: tuple[str, int, bool, str]) -> None:
    """Declare a message: per field its name, type, whether it repeats, and its type's name."""
    made = file.message_type.add(name=name)
    for number, (label, kind, repeated, other) in enumerate(fields, 1):
        how = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
        made.field.add(name=label, number=number, type=kind, label=how, type_name=other or None)


def parsed(text: str) -> Any:
    """The text under the part of model_config.proto that it uses; anything else is an error."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="m", syntax="proto3")
    message(file, "Shape", ("shape", Field.TYPE_INT64, True, ""))
    message(file, "Batching", ("max_queue_delay_microseconds", Field.TYPE_UINT64, False, ""))
    message(
        file,
        "End",
        ("name", Field.TYPE_STRING, False, ""),
        ("data_type", Field.TYPE_ENUM, False, ".m.Kind"),
        ("dims", Field.TYPE_INT64, True, ""),
        ("reshape", Field.TYPE_MESSAGE, False, ".m.Shape"),
    )
    message(
        file,
        "Config",
        ("name", Field.TYPE_STRING, False, ""),
        ("backend", Field.TYPE_STRING, False, ""),
        ("max_batch_size", Field.TYPE_INT32, False, ""),
        ("input", Field.TYPE_MESSAGE, True, ".m.End"),
        ("output", Field.TYPE_MESSAGE, True, ".m.End"),
        ("dynamic_batching", Field.TYPE_MESSAGE, False, ".m.Batching"),
    )
    kinds = file.enum_type.add(name="Kind")
    for number, name in enumerate(["TYPE_INVALID", *TYPES]):
        kinds.value.add(name=name, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("m.Config"))()
    return text_format.Parse(text, config)


def agrees(config: Any, path: Path, *, batched: bool = True) -> None:
    """Names, types and dimensions are the file's."""
    graph = onnx.load(path).graph
    for ends, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [end.name for end in ends] == [value.name for value in values]
        for end, value in zip(ends, values, strict=True):
            kind = end.DESCRIPTOR.fields_by_name["data_type"].enum_type
            name = kind.values_by_number[end.data_type].name
            tensor = value.type.tensor_type
            assert TYPES[name] == tensor.elem_type
            dims = [-1 if axis.dim_param else axis.dim_value for axis in tensor.shape.dim]
            wanted = dims[1:] if batched else dims
            assert list(end.dims) == (wanted or [1])
            assert end.HasField("reshape") == (not wanted)
            assert list(end.reshape.shape) == []


class Ends(nn.Module):
    """Inputs and outputs of several types and ranks."""

    def forward(self, image: Tensor, ids: Tensor, flag: Tensor) -> dict[str, Tensor]:
        mean = image.mean((1, 2, 3)) * flag
        return {"scores": image.mean((2, 3)), "ids": ids + 1, "mean": mean, "seen": mean > 0}


MANY = (torch.randn(2, 3, 4, 5), torch.randint(0, 9, (2, 7)), torch.randint(0, 2, (2,)).bool())


def test_fields_are_the_files(tmp_path: Path) -> None:
    axes = {"image": {2: "height"}, "ids": {1: "length"}}
    record = cerewrite.export_triton(Ends(), tmp_path, MANY, name="ends", dynamic_axes=axes)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "ends",
        "ends/1",
        "ends/1/model.onnx",
        "ends/config.pbtxt",
    ]
    assert record.path == str(tmp_path / "ends" / "1" / "model.onnx")
    config = parsed((tmp_path / "ends" / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("ends", "onnxruntime", 32)
    assert config.HasField("dynamic_batching")
    agrees(config, tmp_path / "ends" / "1" / "model.onnx")


class Constant(nn.Module):
    """An input without a batch."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale


def test_without_a_batch_everywhere_there_is_no_batching(tmp_path: Path) -> None:
    path = tmp_path / "c.onnx"
    cerewrite.export_onnx(Constant(), path, (torch.randn(2, 3), torch.randn(3)))
    config = parsed(triton_config(path, "c"))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    agrees(config, path, batched=False)


def test_names_and_earlier_exports(tmp_path: Path) -> None:
    model, rows = nn.Linear(3, 2), torch.randn(2, 3)
    with pytest.raises(ExportError, match="no name for a model repository"):
        cerewrite.export_triton(model, tmp_path, rows, name="a b")
    assert list(tmp_path.iterdir()) == []
    cerewrite.export_triton(model, tmp_path, rows)
    with pytest.raises(OutputError, match="not empty"):
        cerewrite.export_triton(model, tmp_path, rows)
    before = (tmp_path / "linear" / "config.pbtxt").read_text()
    cerewrite.export_triton(model, tmp_path, rows, overwrite=True, max_batch_size=8)
    assert (tmp_path / "linear" / "config.pbtxt").read_text() == before.replace(": 32", ": 8")
    (tmp_path / "linear" / "2").mkdir()
    with pytest.raises(OutputError, match="did not write: 2"):
        cerewrite.export_triton(model, tmp_path, rows, overwrite=True)


def test_from_the_command_line(write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model()
    monkeypatch.chdir(path.parent)
    options = ["--out", "out", "--triton", "models", "--name", "chain", "--float16"]
    result = CliRunner().invoke(main, ["convert", "model.py", *options])
    assert result.exit_code == 0, result.output
    config = parsed(Path("models/chain/config.pbtxt").read_text())
    agrees(config, Path("models/chain/1/model.onnx"))
    again = CliRunner().invoke(main, ["export", "out", "--triton", "models", "--name", "chain"])
    assert again.exit_code == 10
    options = ["--triton", "models", "--force", "--name", "chain"]
    again = CliRunner().invoke(main, ["export", "out", *options])
    assert again.exit_code == 0, again.output
    assert "models/chain/1/model.onnx: opset 20" in again.output
    agrees(parsed(Path("models/chain/config.pbtxt").read_text()), Path("models/chain/1/model.onnx"))
    nothing = CliRunner().invoke(main, ["export", "out"])
    assert nothing.exit_code == 2
    assert "pass --out FILE" in nothing.output
    assert CliRunner().invoke(main, ["export", "out", "--dynamic", "x"]).exit_code == 2
