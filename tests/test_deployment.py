"""The commands of docs/DEPLOYMENT.md do what the page says, in the order in which they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import cerewrite
from cerewrite import output
from cerewrite.cli import main
from tests.conftest import ROOT

pytestmark = pytest.mark.thorough

PAGE = ROOT / "docs" / "DEPLOYMENT.md"


def test_the_page_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = re.findall(r"^\$ cerewrite (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        few = ["--draws", "32"] if command.startswith("convert") else []  # how well is not asked
        result = CliRunner().invoke(main, [*shlex.split(command), "--quiet", *few])
        assert result.exit_code == 0, f"{command}: {result.output}"
    named = set(re.findall(r"^\| `([\w.]+)`(?:, `([\w.]+)`)? \|", PAGE.read_text(), re.MULTILINE))
    listed = {name for pair in named for name in pair if name}
    assert listed == {item.name for item in Path("build/digits").iterdir()}
    assert {item.name for item in Path("build").iterdir()} == {
        "digits",
        "digits.onnx",
        "digits.onnx.data",
        "half.onnx",
        "models",
    }
    assert Path("build/models/digits/1/model.onnx").is_file()
    assert Path("build/models/digits/config.pbtxt").is_file()
    assert cerewrite.load("build/digits") is not None
    assert output.PLAN in listed
