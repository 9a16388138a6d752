"""An earlier folder is replaced in one step, or stands aside and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cerewrite import output
from cerewrite.errors import OutputError
from cerewrite.output import swap
from tests.conftest import ROOT


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / output.PLAN).write_text(text)
    return path


def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", "a"), folder(tmp_path / "b", "b")
    if not swap.exchange(first, second):
        pytest.skip("this kernel or file system cannot exchange two folders")
    assert (first / output.PLAN).read_text() == "b"
    assert (second / output.PLAN).read_text() == "a"
    assert not swap.exchange(first, tmp_path / "none")


@pytest.mark.parametrize("one_step", [True, False])
def test_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool) -> None:
    if not one_step:
        monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    out = folder(tmp_path / "out", "old")
    with output.staged_folder(out, overwrite=True) as draft:
        (draft / output.PLAN).write_text("new")
    assert (out / output.PLAN).read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_a_rename_that_fails_brings_the_earlier_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    out = folder(tmp_path / "out", "old")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if ".tmp-" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with (
        pytest.raises(OutputError, match="No space left"),
        output.staged_folder(out, overwrite=True) as draft,
    ):
        (draft / output.PLAN).write_text("new")
    assert (out / output.PLAN).read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_killed_between_two_renames_the_earlier_one_comes_back(tmp_path: Path) -> None:
    """The one moment at which a platform without an exchange has neither in place."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from cerewrite import output\nfrom cerewrite.output import swap\n"
        "swap.exchange = lambda first, second: False\nrename = os.rename\n"
        "def dying(source, target):\n"
        "    if '.tmp-' in str(source): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    rename(source, target)\n"
        "os.rename = dying\n"
        "with output.staged_folder(sys.argv[1], overwrite=True) as draft:\n"
        "    (draft / 'plan.json').write_text('new')\n"
    )
    out = folder(tmp_path / "out", "old")
    result = subprocess.run([sys.executable, "-c", script, str(out)], cwd=ROOT)
    assert result.returncode == -signal.SIGKILL
    assert not out.exists()
    output.recover(out)
    assert (out / output.PLAN).read_text() == "old"
