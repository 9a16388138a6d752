"""The output folder: whole or absent, never over foreign files, read back or refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cerewrite import ir, output
from cerewrite.errors import LoadError, OutputError, PlanError
from cerewrite.output import names
from tests.conftest import ROOT, WriteModel

FIGURES = ir.Figures(10, 20, ir.Measures(0.1, 0.1, 0.1, 0.1))
PLAN = ir.Plan(
    "Net", "f" * 8, "primal", "nu", (), "block", (), FIGURES, FIGURES, (), 0, 0.0, (), (), 0
)  # fmt: skip


def listing(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with output.staged_folder(out) as draft:
        (draft / "plan.json").write_text("{}")
        assert not out.exists()
    assert listing(out) == {"plan.json"}
    assert listing(out.parent) == {"out"}
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError),
        output.staged_folder(tmp_path / "out") as draft,
    ):
        (draft / "plan.json").write_text("{}")
        raise KeyError
    assert not listing(tmp_path)


def test_empty_folder_is_filled_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with output.staged_folder(tmp_path / "link") as draft:
        (draft / "plan.json").write_text("{}")
    assert listing(tmp_path / "real") == {"plan.json"}
    assert (tmp_path / "link").is_symlink()


def test_earlier_conversion_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text("old")
    with pytest.raises(OutputError, match="exists and is not empty") as caught:
        output.check_target(out, folder=True)
    assert "--force" in caught.value.advice
    with output.staged_folder(out, overwrite=True) as draft:
        (draft / "report.json").write_text("new")
        assert (out / "plan.json").read_text() == "old"
    assert listing(out) == {"report.json"}
    assert listing(tmp_path) == {"out"}


def test_failed_replacement_keeps_the_earlier_conversion(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text("old")
    with pytest.raises(KeyError), output.staged_folder(out, overwrite=True):
        raise KeyError
    assert (out / "plan.json").read_text() == "old"
    assert listing(tmp_path) == {"out"}


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match=r"did not write: thesis\.tex"):
        output.check_target(tmp_path, folder=True, overwrite=True)


@pytest.mark.parametrize("folder", [True, False])
def test_unwritable_parent(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        output.check_target(tmp_path / "file" / "out", folder=folder)
    with pytest.raises(OutputError, match="cannot be written"):
        output.check_target("/proc/out", folder=folder)
    assert listing(tmp_path) == {"file"}


def test_file_for_a_folder_and_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="exists and is a file"):
        output.check_target(tmp_path / "file", folder=True, overwrite=True)
    with pytest.raises(OutputError, match="is a folder"):
        output.check_target(tmp_path, folder=False, overwrite=True)


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="cannot be written: No space left"),
        output.staged_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert not listing(tmp_path)


def test_check_leaves_nothing(tmp_path: Path) -> None:
    target = output.check_target(tmp_path / "a" / "b", folder=True)
    assert target == (tmp_path / "a" / "b").resolve()
    assert not listing(tmp_path)


def test_write_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "plan.json"
    output.write_file(path, "one")
    with pytest.raises(OutputError, match="exists"):
        output.write_file(path, "two")
    assert path.read_text() == "one"
    output.write_file(path, "two", overwrite=True)
    assert path.read_text() == "two"
    assert listing(path.parent) == {"plan.json"}


def test_killed_process_leaves_the_folder_absent(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom cerewrite import output\n"
        "with output.staged_folder(sys.argv[1]) as draft:\n"
        "    (draft / 'plan.json').write_text('{')\n    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert not (tmp_path / "out").exists()


class Odd(nn.Module):
    """Tied, strided, half-precision, integer, shared-storage and zero-sized tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        flat = torch.randn(10)
        self.left, self.right = nn.Parameter(flat[:6].view(2, 3).t()), nn.Parameter(flat[4:])
        self.coarse = nn.Parameter(torch.randn(3).to(torch.bfloat16))
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("empty", torch.zeros(0, 3))


def test_weights_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = Odd(), Odd()
    output.save_weights(model, tmp_path, fingerprint="f")
    output.load_weights(other, tmp_path)
    stored, back = model.state_dict(), other.state_dict()
    assert stored.keys() == back.keys()
    assert all(torch.equal(stored[name], back[name]) for name in stored)
    assert all(stored[name].dtype == back[name].dtype for name in stored)
    assert other.head.weight is other.embed.weight
    first = (tmp_path / names.WEIGHTS).read_bytes()
    output.save_weights(other, tmp_path, fingerprint="f")
    assert (tmp_path / names.WEIGHTS).read_bytes() == first


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    output.save_weights(Odd(), tmp_path, fingerprint="f")
    header = (tmp_path / names.WEIGHTS).read_bytes()
    assert b"embed.weight" in header
    assert b"head.weight" not in header


def test_weights_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="weight: is on the meta device"):
        output.save_weights(nn.Linear(2, 2, device="meta"), tmp_path, fingerprint="f")


def test_extra_state_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    with pytest.raises(OutputError, match="_extra_state: is a dict"):
        output.save_weights(Extra(2, 2), tmp_path, fingerprint="f")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(2, 3), r"weight is \[2, 2\] instead of \[3, 2\]"),
        (nn.Linear(2, 2, bias=False), "bias is unknown"),
        (nn.Sequential(nn.Linear(2, 2)), r"0.weight is missing, .*and 1 more"),
    ],
)
def test_weights_of_another_model(tmp_path: Path, other: nn.Module, message: str) -> None:
    output.save_weights(nn.Linear(2, 2), tmp_path, fingerprint="f")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(OutputError, match=message):
        output.load_weights(other, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("damage", ["truncate", "foreign", "empty"])
def test_damaged_weights(tmp_path: Path, damage: str) -> None:
    output.save_weights(nn.Linear(2, 2), tmp_path, fingerprint="f")
    path = tmp_path / names.WEIGHTS
    data = {"truncate": path.read_bytes()[:-5], "foreign": b"PK\x03\x04" * 99, "empty": b""}
    path.write_bytes(data[damage])
    with pytest.raises(OutputError, match="not a whole safetensors file"):
        output.load_weights(nn.Linear(2, 2), tmp_path)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        output.load_weights(nn.Linear(2, 2), tmp_path)


def test_records(tmp_path: Path) -> None:
    path = tmp_path / names.PLAN
    path.write_text(ir.dumps(PLAN))
    assert output.read_record(ir.Plan, path) == PLAN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        (json.dumps({"schema": ir.SCHEMA + 1, "new": 1}), "has schema 2, this version reads up to"),
        (json.dumps({"schema": ir.SCHEMA, "new": 1}), "unknown field 'new'"),
    ],
)
def test_damaged_and_newer_records(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / names.PLAN
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        output.read_record(ir.Plan, path)


def test_unreadable_records(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        output.read_record(ir.Plan, tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OutputError, match="not UTF-8"):
        output.read_record(ir.Plan, tmp_path / "binary.json")


def write(folder: Path, source: str | None, inputs: tuple[str, ...] = ()) -> ir.Plan:
    folder.mkdir(exist_ok=True)
    named = output.relative_source(source, folder.resolve())
    output.write_module(folder, "Net", named, inputs, version="1.2")
    return dataclasses.replace(PLAN, source=named, inputs=inputs)


def test_module_file_finds_the_factory_from_anywhere(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model()
    out = path.parent / "out"
    monkeypatch.chdir(path.parent)
    plan = write(out, "model.py:build_model", ("2,16:float32",))
    text = (out / names.MODULE).read_text()
    assert 'SOURCE = "../model.py:build_model"' in text
    assert 'INPUTS = ("2,16:float32",)' in text
    monkeypatch.chdir(ROOT)
    assert isinstance(output.build_original(out), nn.Sequential)
    inputs = output.recorded_inputs(plan)
    assert isinstance(inputs, tuple)
    assert inputs[0].shape == (2, 16)


def test_module_file_of_an_importable_factory(tmp_path: Path) -> None:
    plan = write(tmp_path, "torch.nn:Flatten")
    assert 'SOURCE = "torch.nn:Flatten"' in (tmp_path / names.MODULE).read_text()
    assert isinstance(output.build_original(tmp_path), nn.Flatten)
    assert output.recorded_inputs(plan) is None


def test_module_file_without_a_factory(tmp_path: Path) -> None:
    write(tmp_path, None)
    with pytest.raises(LoadError, match="came from Python"):
        output.build_original(tmp_path)


def test_module_file_that_was_edited_wrongly(tmp_path: Path) -> None:
    path = tmp_path / names.MODULE
    path.write_text("SOURCE = 'x'\ndef build_original():\n    return 1 / 0\n")
    with pytest.raises(LoadError, match=r"ZeroDivisionError.*\(line 3"):
        output.build_original(tmp_path)
    path.write_text("SOURCE = 'x'\n")
    with pytest.raises(LoadError, match="build_original"):
        output.build_original(tmp_path)


def test_an_original_that_is_no_module(tmp_path: Path) -> None:
    (tmp_path / names.MODULE).write_text("SOURCE = 'x'\ndef build_original():\n    return 5\n")
    with pytest.raises(LoadError, match="returned an object of type int"):
        output.build_original(tmp_path)


def test_moved_source_says_where_it_was(write_model: WriteModel) -> None:
    path = write_model()
    out = path.parent / "out"
    plan = write(out, f"{path}:build_model")
    path.unlink()
    with pytest.raises(LoadError, match=r"\.\./model\.py: no such file") as caught:
        output.original_of(out, plan)
    assert "--model" in caught.value.advice and "load(folder, model)" in caught.value.advice


def test_no_module_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no model_ce"):
        output.build_original(tmp_path)


def test_names_that_may_be_replaced_are_those_written() -> None:
    written = {names.PLAN, names.WEIGHTS, names.REPORT, names.PAGE, names.ONNX, names.MODULE}
    assert written <= names.OURS
