"""Folders written and read again."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cerewrite
from cerewrite import ir, output
from cerewrite.api import saving
from cerewrite.errors import LoadError, OutputError, UsageError
from tests.api.builders import INPUT, Net, same, snapshot
from tests.conftest import ROOT

pytestmark = [pytest.mark.thorough, pytest.mark.xdist_group("saving")]


@pytest.fixture(scope="module")
def folder(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of a model file, with ONNX."""
    root = tmp_path_factory.mktemp("saved")
    (root / "nets").mkdir()
    (root / "nets" / "model.py").write_text(
        "from tests.api.builders import Net, INPUT as example_inputs\n"
        "def build_model():\n    return Net()\n"
    )
    source = f"{root}/nets/model.py:build_model"
    result = cerewrite.convert(
        net, INPUT, out=root / "out", onnx=True, source=source, estimator="analytic"
    )
    assert result.export is not None
    assert all(parity.passed for parity in result.export.parity)
    return root / "out"


def test_folder_is_complete(folder: Path) -> None:
    names = {item.name for item in folder.iterdir()}
    assert names == {
        output.PLAN,
        output.WEIGHTS,
        output.REPORT,
        output.PAGE,
        output.ONNX,
        output.MODULE,
    }
    assert {item.name for item in folder.parent.iterdir()} == {"nets", "out"}
    report = output.read_record(ir.Report, folder / output.REPORT)
    assert report.plan == saving.read_plan(folder)
    assert report.export is not None
    assert report.export.path == output.ONNX
    assert [name for name, _ in report.seconds][-2:] == ["export", "save"]
    assert (folder / output.PAGE).read_text().lower().startswith("<!doctype html>")


def test_load(net: Net, folder: Path, conversion: cerewrite.Conversion) -> None:
    loaded = cerewrite.load(folder)
    assert same(snapshot(loaded), snapshot(conversion.model))
    fresh = Net()
    before = snapshot(fresh)
    assert same(snapshot(cerewrite.load(folder, fresh)), snapshot(loaded))
    assert same(before, snapshot(fresh))
    assert not same(snapshot(cerewrite.load(folder, fresh, weights=False)), snapshot(loaded))
    assert cerewrite.load(folder, fresh, inplace=True) is fresh


def test_load_into_a_model_that_fails_leaves_it_as_it_was(folder: Path, tmp_path: Path) -> None:
    for name in (output.PLAN, output.MODULE):
        (tmp_path / name).write_text((folder / name).read_text())
    fresh = Net()
    before = snapshot(fresh)
    with pytest.raises(OutputError, match="no such file"):
        cerewrite.load(tmp_path, fresh, inplace=True)
    assert same(before, snapshot(fresh))


def test_generated_file_in_a_fresh_process(folder: Path) -> None:
    script = (
        "from model_ce import build_model\nimport torch\n"
        "torch.manual_seed(1); fresh = build_model()\n"
        "trained = build_model(weights=True)\n"
        "print(type(fresh).__name__, sum(p.numel() for p in fresh.parameters()),\n"
        "      torch.equal(fresh.head[0].weight, trained.head[0].weight))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    plan = saving.read_plan(folder)
    assert result.stdout.split()[:2] == ["Net", str(plan.planned.params)], result.stderr


def test_save_of_a_trained_model(conversion: cerewrite.Conversion, tmp_path: Path) -> None:
    model = copy.deepcopy(conversion.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    cerewrite.save(tmp_path / "out", model, conversion.plan)
    assert same(snapshot(cerewrite.load(tmp_path / "out", Net())), snapshot(model))
    with pytest.raises(LoadError, match="came from Python"):
        cerewrite.load(tmp_path / "out")


def test_a_rewritten_model_is_exported_to_the_shapes_of_its_analysis(
    conversion: cerewrite.Conversion, folder: Path, tmp_path: Path
) -> None:
    assert conversion.plan.inputs == ("2,3,8,8:float32",)
    for model in (conversion.model, cerewrite.load(folder)):
        record = cerewrite.export_onnx(model, tmp_path / "net.onnx")
        assert record.inputs == (("x", ("batch", 3, 8, 8)),)
        assert all(pair.passed for pair in record.parity)
    cerewrite.save(tmp_path / "again", conversion.model, conversion.plan, onnx=True)
    assert '"2,3,8,8:float32"' in (tmp_path / "again" / "model_ce.py").read_text()


def test_no_inputs_and_no_shapes_to_draw_them_to(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no example inputs for this Net"):
        cerewrite.export_onnx(Net(), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_load_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such folder"):
        cerewrite.load(tmp_path / "none")
    with pytest.raises(OutputError, match=r"plan\.json: cannot be read"):
        cerewrite.load(tmp_path)
