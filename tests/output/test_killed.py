"""A conversion that is killed leaves its folder complete or absent, an earlier one whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.thorough


def killed(folder: Path, moments: int, mode: str) -> list[str]:
    command = [sys.executable, "-m", "tests.output.killing", str(folder), str(moments), mode]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    return result.stdout.decode().split()


def check(words: list[str], moments: int) -> None:
    assert len(words) == moments
    assert set(words) <= {"new:absent", "new:whole", "replaced:whole"}


def test_killed_at_a_few_moments(tmp_path: Path) -> None:
    check(killed(tmp_path, 4, "plain"), 4)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    words = killed(tmp_path, 50, "onnx")
    check(words, 50)
    # the test says something only if some runs were killed before they wrote
    assert "new:absent" in words
