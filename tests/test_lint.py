"""ruff and mypy, run as tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PYTHON = [sys.executable, "-m"]
CODE = ["cerewrite", "passes", "tests", "examples", "benchmarks", "docs"]
LONGEST_FILE = 310


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--quiet", "--output-format=concise", *CODE],
        ["ruff", "format", "--check", *CODE],
        ["mypy"],
    ],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_lint(command: list[str]) -> None:
    result = subprocess.run([*PYTHON, *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_files_are_short() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for folder in ("cerewrite", "passes")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}
