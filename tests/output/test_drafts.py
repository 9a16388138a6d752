"""What a killed run leaves beside its output goes with the next; a living one is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cerewrite import output
from cerewrite.errors import TargetTakenError
from cerewrite.exporter import export_onnx
from cerewrite.output import drafts
from tests.conftest import ROOT

RUNS = {
    "folder": "from cerewrite.output import staged_folder as staging",
    "file": "from cerewrite.output.staging import _drafting\n"
    "staging = lambda target: _drafting(target, target)",
    "onnx": "from cerewrite.exporter.placing import staging",
}
"""Ways to write an output."""

END = {
    "dies": "os.kill(os.getpid(), signal.SIGKILL)",
    "lives": "print('ready', flush=True); input()",
}


def run(way: str, end: str, target: Path) -> subprocess.Popen[str]:
    """A process that writes an output, up to the moment at which it dies or waits."""
    script = (
        f"import os, signal, sys\nfrom pathlib import Path\n{RUNS[way]}\n"
        f"with staging(Path(sys.argv[1])):\n    {END[end]}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(target)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def write(way: str, target: Path) -> None:
    if way == "folder":
        with output.staged_folder(target) as draft:
            (draft / output.PLAN).write_text("{}")
    elif way == "file":
        output.write_file(target, "text")
    else:
        export_onnx(nn.Linear(2, 2), target, (torch.randn(2, 2),))


@pytest.mark.thorough
@pytest.mark.parametrize("way", RUNS)
def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path, way: str) -> None:
    target = tmp_path / "out[1]"
    assert run(way, "dies", target).wait() == -signal.SIGKILL
    (left,) = drafts.beside(target, "tmp")
    assert not target.exists()
    foreign = tmp_path / ".another.tmp-1"
    foreign.mkdir()
    assert (tmp_path / ".out[1].lock").exists() == (way != "file")  # drafting alone claims nothing
    write(way, target)
    assert target.exists() and foreign.exists() and not left.exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == [".another.tmp-1", "out[1]"]


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = run("folder", "lives", target)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (busy,) = drafts.beside(target, "tmp")
    drafts.sweep(target)
    with pytest.raises(TargetTakenError, match=f"is being written by process {process.pid}"):
        write("folder", target)
    assert busy.exists()
    process.kill()
    process.communicate()
    drafts.sweep(target)
    assert not busy.exists()


def test_a_sweep_before_the_lock_costs_only_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = drafts._lock, []

    def late(folder: Path) -> int | None:
        if not swept:
            swept.append(folder)
            drafts.sweep(tmp_path / "out")
        return lock(folder)

    monkeypatch.setattr(drafts, "_lock", late)
    with drafts.draft_folder(tmp_path / "out") as folder:
        assert folder.exists() and folder != swept[0] and not swept[0].exists()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".out.tmp-1").mkdir()
    monkeypatch.setattr(drafts, "_lock", lambda folder: None)
    with drafts.draft_folder(tmp_path / "out") as folder:
        assert folder.exists()
    assert [item.name for item in tmp_path.iterdir()] == [".out.tmp-1"]
