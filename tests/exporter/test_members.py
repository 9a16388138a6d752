"""Members in the ONNX file: each is PyTorch's, and their mean is the model's output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import cerewrite
from cerewrite.cli import main
from cerewrite.errors import ExportError, RewriteError, UsageError
from cerewrite.exporter import parity, triton_config
from tests.conftest import WriteModel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Conv2d(32, 3, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.body(self.norm(self.stem(image)).relu()).relu()
        z = self.head(x).mean((2, 3))
        return {"logits": z, "size": z[:, :1] * 2}


def converted(net: nn.Module, *inputs: Tensor) -> nn.Module:
    torch.manual_seed(0)
    return cerewrite.convert(net, inputs, members=4, estimator="analytic").model.eval()


@pytest.mark.parametrize("add", ["each", "disagreement"])
def test_the_file_holds_the_means_and_what_members_add(tmp_path: Path, add: str) -> None:
    x = torch.randn(2, 1, 6, 6)
    model = converted(Net(), x)
    path = tmp_path / "net.onnx"
    record = cerewrite.export_onnx(model, path, (x,), members=add)
    assert all(pair.passed for pair in record.parity)
    shapes = dict(record.outputs)
    name = "logits_members" if add == "each" else "logits_disagreement"
    assert shapes["logits"] == ("batch", 3)
    assert shapes[name] == (("batch", 4, 3) if add == "each" else ("batch", 3))
    assert [name for name, _ in record.inputs] == ["image"]
    session, y = onnxruntime.InferenceSession(path), torch.randn(5, 1, 6, 6)
    found = dict(zip(shapes, session.run(list(shapes), {"image": y.numpy()}), strict=True))
    with torch.no_grad():
        outputs = cerewrite.members(model)(y)["logits"]
        np.testing.assert_allclose(found["logits"], model(y)["logits"], atol=1e-5)
    wanted = outputs.transpose(0, 1) if add == "each" else outputs.std(0)
    np.testing.assert_allclose(found[name], wanted, atol=1e-5)
    metadata = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert metadata["members"] == "4"
    text = triton_config(path, "net")
    assert (
        f'name: "{name}"\n  data_type: TYPE_FP32\n  dims: {"[4, 3]" if add == "each" else "[3]"}'
        in text
    )


@pytest.mark.thorough
def test_parity_is_held_for_every_member_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small member hides its error behind large ones, if all are compared as one tensor."""
    x = torch.randn(2, 8)
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    model = converted(net, x)
    with torch.no_grad():
        model[-1].weight[:, : model[-1].weight.shape[1] // 4] *= 1e-3
        model[-1].bias.zero_()
    real = parity.Runner.__call__

    def off(self: parity.Runner, *args: object) -> dict[str, np.ndarray]:
        found = real(self, *args)
        found["members"] = found["members"].copy()
        found["members"][:, 0] *= 1 + 1e-3  # within 1e-5 of the largest member
        return found

    cerewrite.export_onnx(model, tmp_path / "sound.onnx", (x,), members="each")
    monkeypatch.setattr(parity.Runner, "__call__", off)
    with pytest.raises(ExportError, match="PyTorch and ONNX Runtime differ"):
        cerewrite.export_onnx(model, tmp_path / "off.onnx", (x,), members="each")
    assert not (tmp_path / "off.onnx").exists()


@pytest.mark.thorough
def test_half_precision_and_refusals(tmp_path: Path) -> None:
    x = torch.randn(2, 8)
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    model = converted(net, x)
    record = cerewrite.export_onnx(model, tmp_path / "h.onnx", (x,), members="each", float16=True)
    assert dict(record.outputs)["members"] == ("batch", 4, 3)
    with pytest.raises(UsageError, match="unknown outputs of members 'all'"):
        cerewrite.export_onnx(model, tmp_path / "a.onnx", (x,), members="all")
    with pytest.raises(RewriteError, match="not a rewritten model"):
        cerewrite.export_onnx(net, tmp_path / "b.onnx", (x,), members="each")
    assert [path.name for path in tmp_path.iterdir()] == ["h.onnx"]


@pytest.mark.thorough
def test_from_the_command_line(tmp_path: Path, write_model: WriteModel) -> None:
    model, folder = write_model(), tmp_path / "out"
    run = CliRunner().invoke
    arguments = ["--members", "auto", "--onnx", "--onnx-members", "each", "--out", str(folder)]
    arguments += ["--estimator", "analytic", "-v"]
    result = run(main, ["convert", str(model), *arguments])
    assert result.exit_code == 0, result.output
    assert "mean of the members" in result.output
    plan = cerewrite.load(folder)
    assert cerewrite.members(plan).count == 4
    outputs = [v.name for v in onnx.load(folder / "model.onnx").graph.output]
    assert outputs == ["output", "members"]
    file = tmp_path / "again.onnx"
    result = run(main, ["export", str(folder), "--members", "disagreement", "--out", str(file)])
    assert result.exit_code == 0, result.output
    assert [v.name for v in onnx.load(file).graph.output] == ["output", "disagreement"]
    result = run(main, ["plan", str(model), "--members", "4", "--scope", "block"])
    assert result.exit_code == 2 and "--scope network" in result.output
    result = run(main, ["plan", str(model), "--members", "1"])
    assert result.exit_code == 2 and "at least 2" in result.output


class Named(nn.Module):
    """An ensemble whose outputs have names that the members' outputs might take."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
        )
        self.names = names

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        return {name: y + index for index, name in enumerate(self.names)}


@pytest.mark.thorough
def test_an_output_that_is_called_members_is_no_members(tmp_path: Path) -> None:
    x = torch.randn(4, 5)
    model = converted(Named("crew_members", "other"), x)
    record = cerewrite.export_onnx(model, tmp_path / "crew.onnx", (x,), members="each")
    shapes = dict(record.outputs)
    assert shapes["crew_members"] == ("batch", 3)
    assert shapes["crew_members_members"] == ("batch", 4, 3)
    taken = converted(Named("members"), x)
    with pytest.raises(UsageError, match="'members' is an output of the model itself"):
        cerewrite.export_onnx(taken, tmp_path / "taken.onnx", (x,), members="each")
