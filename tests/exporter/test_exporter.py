"""The export stage: what is written, what is proved, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import ExportError
from cerewrite.exporter import check_parity, export_onnx
from cerewrite.exporter.degenerate import hidden_weights, perturbed, silent_outputs
from cerewrite.exporter.inputs import ExampleInputs, draw, named_tensors
from cerewrite.exporter.parity import relative_error


class Members(nn.Module):
    """Linear, block-diagonal linear by baddbmm, linear."""

    def __init__(self, members: int = 4, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Linear(6, members * width)
        self.weight = nn.Parameter(torch.randn(members, width, width) / width**0.5)
        self.bias = nn.Parameter(torch.randn(members, 1, width))
        self.leave = nn.Linear(members * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        members, width, _ = self.weight.shape
        h = torch.relu(self.enter(x)).unflatten(-1, (members, width)).movedim(-2, 0)
        h = torch.relu(torch.baddbmm(self.bias, h, self.weight))
        return self.leave(h.movedim(0, -2).flatten(-2))


class Several(nn.Module):
    """Several inputs, some nested, one constant; several outputs, some nested, one None."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.linear = nn.Linear(5, 4)

    def forward(self, ids: Tensor, scale: float, pair: tuple[Tensor, Tensor]) -> dict[str, Any]:
        hidden = self.embed(ids).mean(1)
        scores = self.linear(hidden) * scale + pair[0] * pair[1]
        return {"scores": scores, "none": None, "more": (hidden, ids), "best": scores.argmax(-1)}


class Counter(nn.Module):
    """Counts its calls in a buffer, replaces another, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.calls: Tensor
        self.last: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.last + 1
        torch.rand(1)
        return self.linear(x)


class Rounding(nn.Module):
    """A linear layer that is off by a part of its output, in float32 alone."""

    def __init__(self, layer: nn.Linear, error: float) -> None:
        super().__init__()
        self.layer, self.error = layer, error

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.layer(input)
        return y * (1.0 + self.error) if y.dtype == torch.float32 else y


class ZeroHead(nn.Module):
    """A network whose read-out starts at zero, as torchvision's ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    net(torch.randn(16, 3, 6, 6))
    return net


IMAGES = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    state = [(k, v.numpy().tobytes()) for k, v in model.state_dict(keep_vars=False).items()]
    return state, [module.training for module in model.modules()], torch.get_rng_state().tolist()


def test_a_conv_net_is_exported_and_proved(tmp_path: Path) -> None:
    net = conv_net()
    net[1].eval()
    before = snapshot(net)
    export = export_onnx(net, tmp_path / "net.onnx", IMAGES, metadata={"plan": "abc"})
    assert snapshot(net) == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert export.opset == 20
    assert export.size == (tmp_path / "net.onnx").stat().st_size
    assert export.inputs == (("input", ("batch", 3, 6, 6)),)
    assert export.outputs == (("output", ("batch", 5)),)
    assert [record.batch for record in export.parity] == [0, 1, 2, 7]
    assert all(record.passed and record.note == "" for record in export.parity)
    proto = onnx.load(tmp_path / "net.onnx")
    assert export.nodes == len(proto.graph.node)
    assert [node.op_type for node in proto.graph.node].count("Conv") == 2
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert entries["producer"] == "cerewrite"
    assert entries["plan"] == "abc"
    assert entries["version.torch"] == torch.__version__
    assert str(Path(__file__).parent).encode() not in (tmp_path / "net.onnx").read_bytes()


@pytest.mark.thorough
def test_block_diagonal_members_from_one_example_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export = export_onnx(Members(), tmp_path / "m.onnx", (torch.randn(1, 6),), batches=(1, 3, 32))
    assert export.inputs == (("x", ("batch", 6)),)
    assert all(record.passed for record in export.parity)


@pytest.mark.thorough
def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 11, (3, 7))
    arguments = (ids, 2.0, (torch.randn(3, 4), torch.randn(4)))
    model = Several()
    export = export_onnx(model, tmp_path / "s.onnx", arguments)
    assert [name for name, _ in export.inputs] == ["ids", "pair_0", "pair_1"]
    assert [name for name, _ in export.outputs] == ["scores", "more_0", "more_1", "best"]
    assert dict(export.inputs)["ids"] == ("batch", 7)
    assert dict(export.inputs)["pair_1"] == (4,)
    by_name = {"pair": arguments[2], "scale": 2.0, "ids": ids}
    assert export_onnx(model, tmp_path / "k.onnx", by_name).inputs == export.inputs


@pytest.mark.thorough
def test_zero_weights_are_checked_on_a_perturbed_copy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, example = ZeroHead(), (torch.randn(2, 4),)
    before = snapshot(model)
    export = export_onnx(model, tmp_path / "z.onnx", example)
    assert snapshot(model) == before
    plain, copies = export.parity[:4], export.parity[4:]
    assert [record.note for record in plain] == ["", "", "", ""]
    assert [record.batch for record in copies] == [0, 1, 2, 7]
    assert all("head.weight near zero" in record.note for record in copies)
    assert [file.name for file in tmp_path.iterdir()] == ["z.onnx"]
    # The planted fault: the zero file agrees with any head; the perturbed copy tells.
    assert all(record.relative_error == 0 for record in plain)
    other = perturbed(model, seed=1)
    found = check_parity(other, tmp_path / "z.onnx", example)
    assert all(record.passed for record in found if not record.batch)  # nothing to compare
    assert not any(record.passed for record in found if record.batch)


@pytest.mark.thorough
def test_parity_notices_another_models_file(tmp_path: Path) -> None:
    net = conv_net()
    export_onnx(net, tmp_path / "net.onnx", IMAGES)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[0].weight[0, 0, 0, 0] += 1e-2
    good = check_parity(net, tmp_path / "net.onnx", IMAGES)
    bad = check_parity(twin, tmp_path / "net.onnx", IMAGES)
    assert all(record.passed for record in good)
    assert all(record.passed for record in bad if not record.batch)  # nothing to compare
    assert not any(record.passed for record in bad if record.batch)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("own", "file", "passes"),
    [
        (3e-5, 0.0, True),  # PyTorch is off, the file is right
        (3e-5, 1e-5, True),  # both are off, the file by less
        (3e-5, 4e-5, False),  # the file is off by more
        (0.0, 3e-5, False),
        (3e-4, 2e-4, False),  # more than rounding can be
    ],
)
def test_double_precision_decides_what_is_rounding(
    tmp_path: Path, own: float, file: float, passes: bool
) -> None:
    torch.manual_seed(0)
    model = Rounding(nn.Linear(6, 4, bias=False), own)
    off = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        off.weight.copy_(model.layer.weight * (1.0 - file))
    export_onnx(off, tmp_path / "net.onnx", (torch.randn(2, 6),))
    records = check_parity(model, tmp_path / "net.onnx", (torch.randn(2, 6),), batches=(2,))
    assert records[0].passed == passes
    assert ("float64" in records[0].note) == passes


@pytest.mark.thorough
def test_buffers_random_state_and_modes_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Counter()
    before, last = snapshot(model), model.last
    export_onnx(model, tmp_path / "c.onnx", (torch.randn(2, 3, generator=torch.Generator()),))
    assert snapshot(model) == before
    assert model.last is last


@pytest.mark.thorough
def test_same_model_same_bytes(tmp_path: Path) -> None:
    net = conv_net()
    first = export_onnx(net, tmp_path / "a.onnx", IMAGES)
    second = export_onnx(net, tmp_path / "b.onnx", IMAGES)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert dataclasses.replace(second, path=first.path) == first


@pytest.mark.thorough
def test_external_data_on_request(tmp_path: Path) -> None:
    net = nn.Linear(64, 64)
    export = export_onnx(net, tmp_path / "e.onnx", (torch.randn(2, 64),), external_data=True)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["e.onnx", "e.onnx.data"]
    assert export.size == sum(file.stat().st_size for file in files)
    assert all(record.passed for record in export.parity)


@pytest.mark.thorough
def test_external_data_above_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, example = nn.Linear(64, 64), (torch.randn(2, 64),)
    monkeypatch.setattr("cerewrite.exporter.translate.EXTERNAL_ABOVE", 4 * 64 * 64)
    export_onnx(net, tmp_path / "large.onnx", example)
    assert (tmp_path / "large.onnx.data").stat().st_size >= 4 * 64 * 64


@pytest.mark.thorough
def test_float16_within_its_own_limit(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).half()
    export = export_onnx(net, tmp_path / "h.onnx", (torch.randn(2, 8).half(),), limit=1e-3)
    assert all(record.passed for record in export.parity)


class BakedBatch(nn.Module):
    """Holds its example's batch size in a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 4)


class Branch(nn.Module):
    """Chooses its way by its data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class NotTensor(nn.Module):
    """Returns a number beside its tensor."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 3


LINEAR = nn.Linear(4, 4)
REFUSED: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], str]] = [
    (LINEAR, (torch.randn(2, 4),), {"opset": 99}, "opset not honoured: 99 was asked"),
    (LINEAR, (torch.randn(2, 4),), {"limit": 0.0}, "PyTorch and ONNX Runtime differ"),
    (LINEAR, (torch.randn(2, 5),), {}, "fails on its example inputs"),
    (LINEAR, (torch.randn(2, 4), 1), {}, "do not fit Linear.forward"),
    (LINEAR, (), {}, "do not fit Linear.forward"),
    (Branch(), (torch.randn(2, 4),), {}, r"Branch cannot be exported .*x.sum\(\) > 0"),
    (BakedBatch(), (torch.randn(2, 4),), {}, "batch axis is fixed in the file"),
    (NotTensor(), (torch.randn(2, 4),), {}, "is a int, not a tensor"),
    (nn.Linear(4, 4, device="meta"), (torch.randn(2, 4),), {}, "meta device"),
    (nn.Linear(4, 4).bfloat16(), (torch.randn(2, 4).bfloat16(),), {}, "refuses x.onnx"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("model", "example", "options", "text"), REFUSED)
def test_a_refusal_says_why_and_leaves_nothing(
    model: nn.Module,
    example: tuple[Any, ...],
    options: dict[str, Any],
    text: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ExportError, match=text) as caught:
        export_onnx(model, tmp_path / "x.onnx", example, **options)
    assert caught.value.advice
    assert len(caught.value.message) < 700
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert model.training


@pytest.mark.thorough
def test_a_failure_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError):
        export_onnx(LINEAR, path, (torch.randn(2, 4),), limit=0.0)
    assert path.read_bytes() == b"old"


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is a folder"):
        export_onnx(LINEAR, tmp_path, (torch.randn(2, 4),))
    with pytest.raises(ExportError, match="cannot be written: No such file"):
        export_onnx(LINEAR, tmp_path / "no" / "x.onnx", (torch.randn(2, 4),))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ExportError, match="refuses"):
        check_parity(LINEAR, tmp_path / "x.onnx", (torch.randn(2, 4),))


def test_relative_error_by_hand() -> None:
    one = np.array([1.0, -4.0])
    assert relative_error(one, np.array([1.0, -3.0]), "y", 2) == pytest.approx(0.25)
    assert relative_error(one, one, "y", 2) == 0
    assert relative_error(np.zeros(2), np.array([0.0, 1e-9]), "y", 2) == math.inf
    nan = np.array([np.nan, 2.0])
    assert relative_error(nan, nan, "y", 2) == 0
    assert relative_error(nan, np.array([1.0, 2.0]), "y", 2) == math.inf
    assert relative_error(one, nan, "y", 2) == math.inf
    with pytest.raises(ExportError, match="has shape"):
        relative_error(one, np.zeros((1, 2)), "y", 2)
    with pytest.raises(ExportError, match="has shape None"):
        relative_error(one, None, "y", 2)


def test_blind_spots_are_seen() -> None:
    model = ZeroHead()
    example = ExampleInputs.of(model, (torch.randn(2, 4),))
    assert hidden_weights(model) == ("head.weight",)
    assert silent_outputs(model, example, 0) == ("output",)
    twin = perturbed(model, 0)
    assert hidden_weights(twin) == ()
    assert silent_outputs(twin, example, 0) == ()
    assert torch.equal(twin.get_parameter("body.weight"), model.body.weight)


def test_inputs_are_drawn_in_the_examples_range() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = draw(5 + 2 * torch.randn(1000, 3), generator)
    assert abs(float(pixels.mean()) - 5) < 0.3
    assert abs(float(pixels.std()) - 2) < 0.3
    ids = draw(torch.tensor([[3, 9]] * 500), generator)
    assert set(ids.flatten().tolist()) == set(range(3, 10))
    assert draw(torch.zeros(100), generator).std() > 0.5
    mask = torch.tensor([0.0, -math.inf])
    assert draw(mask, generator) is mask
    flags = draw(torch.tensor([True, False] * 50), generator)
    assert flags.dtype == torch.bool
    assert 0 < int(flags.sum()) < 100


def test_output_names_avoid_the_inputs() -> None:
    x = torch.zeros(1)
    assert [n for n, _ in named_tensors({"x": x, "x_out": x, "a.b": x}, ("x",))] == [
        "x_out",
        "x_out_out",
        "a_b",
    ]
    assert [name for name, _ in named_tensors((x, [x]), ())] == ["output_0", "output_1_0"]
