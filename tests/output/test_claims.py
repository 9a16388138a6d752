"""Nothing is lost without --force: what appears meanwhile stays, and one run holds a target."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import output
from cerewrite.errors import OutputError, TargetTakenError
from cerewrite.exporter import export_onnx, placing
from cerewrite.output import claims, swap
from tests.models import chain


def appear(path: Path, kind: str) -> None:
    """Something that nobody saw when the target was checked."""
    if kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / ("plan.json" if kind == "conversion" else "notes.txt")).write_text("mine")


def kept(path: Path) -> bool:
    files = [path] if path.is_file() else path.iterdir()
    return any(item.read_text() == "mine" for item in files)


@pytest.mark.parametrize("kind", ["file", "folder", "conversion"])
def test_what_appears_while_a_folder_is_made_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(TargetTakenError, match="appeared") as caught,
        output.staged_folder(out) as draft,
    ):
        (draft / output.PLAN).write_text("{}")
        appear(out, kind)
    assert kept(out) and caught.value.exit_code == 12
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_force_replaces_what_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, one_step: bool
) -> None:
    if not one_step:
        monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    out = tmp_path / "out"
    with (
        pytest.raises(TargetTakenError),
        output.staged_folder(out, overwrite=True) as draft,
    ):
        (draft / output.PLAN).write_text("{}")
        appear(out, kind)
    assert kept(out)
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_that_appears_is_filled(tmp_path: Path) -> None:
    with output.staged_folder(tmp_path / "out") as draft:
        (draft / output.PLAN).write_text("{}")
        (tmp_path / "out").mkdir()
    assert (tmp_path / "out" / output.PLAN).read_text() == "{}"


@pytest.mark.parametrize("how", ["renameat2", "link", "neither"])
def test_what_appears_while_a_file_is_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError(95, "Operation not supported")

    if how != "renameat2":
        monkeypatch.setattr(claims, "renamed", lambda *paths: False)
    if how == "neither":
        monkeypatch.setattr(os, "link", refuse)
    new, old = tmp_path / "new", tmp_path / "old"
    for path in (new, old):
        path.write_text(path.name)
    with pytest.raises(TargetTakenError):
        claims.move_new(new, old)
    assert (new.read_text(), old.read_text()) == ("new", "old")
    claims.move_new(new, tmp_path / "free")
    assert (tmp_path / "free").read_text() == "new" and not new.exists()


@pytest.mark.parametrize("external", [False, True])
def test_what_appears_while_a_model_is_exported_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    target, moved = tmp_path / "m.onnx", placing.move_new

    def late(source: Path, place: Path) -> None:
        if place == target:
            target.write_text("mine")
        moved(source, place)

    monkeypatch.setattr(placing, "move_new", late)
    x = (torch.randn(2, 3),)
    with pytest.raises(TargetTakenError):
        export_onnx(nn.Linear(3, 2), target, x, overwrite=False, external_data=external)
    assert kept(target)
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]


def hold(target: Path, ready: Any, go: Any) -> None:
    with claims.claimed(target):
        ready.set()
        go.wait()


@pytest.mark.thorough
def test_another_process_that_holds_a_target_is_named(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "out", ready, go))
    other.start()
    assert ready.wait(60)
    try:
        with pytest.raises(TargetTakenError, match=rf"process {other.pid}\b"):
            output.write_file(tmp_path / "out", "text", overwrite=True)
    finally:
        go.set()
        other.join()
    output.write_file(tmp_path / "out", "text")
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_two_conversions_into_one_folder(tmp_path: Path) -> None:
    """One writes it, the other is refused; at no time is a result lost."""
    torch.manual_seed(0)
    net, x, out = chain([32, 32, 32], inputs=16), torch.randn(2, 16), tmp_path / "a" / "out"
    found: list[Any] = []
    both = threading.Barrier(2)

    def convert() -> None:
        both.wait()
        try:
            found.append(cerewrite.convert(net, x, gain="he", out=out, estimator="analytic"))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=convert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refused,) = [item for item in found if isinstance(item, Exception)]
    assert isinstance(refused, OutputError)
    assert (out / output.PLAN).exists()
    assert [item.name for item in out.parent.iterdir()] == ["out"]


def test_a_failed_run_takes_the_folders_away_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output.staged_folder(tmp_path / "a" / "b" / "out"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
