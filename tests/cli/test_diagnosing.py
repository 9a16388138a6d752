"""``cerewrite diagnose``: data, gaps, two models side by side, records."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.ir.serial import decode
from cerewrite.reporter.figures import with_error
from tests.cli.running import run

MODEL = """
import torch
from torch import nn

def build_model():
    layers = [nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(24, 3))

def example_inputs():
    return torch.ones(4, 6)

def train():
    torch.manual_seed(1)
    return [(torch.randn(12, 6), torch.arange(12) % 3)]

def wrong():
    return [(torch.randn(12, 6), torch.arange(12))]

def alone():
    return [torch.randn(12, 6)]

def none():
    return []
"""


def read(text: str) -> list[Diagnosis]:
    return [decode(Diagnosis, item, source="the file") for item in json.loads(text)]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    return "model.py"


def test_without_data_it_says_so(model: str) -> None:
    result = run("diagnose", model, "--draws", 2)
    assert result.exit_code == 0
    assert "inputs none: only shapes were given" in " ".join(result.output.split())
    assert "give data (--data module:function), or ask for Gaussian inputs" in " ".join(
        result.output.split()
    )
    assert "synflow" in result.output and "capacity" in result.output


def test_data_json_and_html_hold_the_same_figures(model: str) -> None:
    made = run(
        "diagnose", model, "--data", "model.py:train", "--draws", 2, "--json", "d.json",
        "--html", "d.html", "-v",
    )  # fmt: skip
    assert made.exit_code == 0
    (found,) = read(Path("d.json").read_text())
    assert found.data == "given" and found.examples == 12 and found.draws == 2
    page = Path("d.html").read_text()
    text = []
    parser = HTMLParser()
    parser.handle_data = text.append  # type: ignore[method-assign]
    parser.feed(page)
    shown, printed = "".join(text), "".join(made.output.split())
    for finding in found.findings:
        assert finding.diagnostic in shown
        assert finding.formula in shown
        for figure in finding.figures:
            value = with_error(figure.value, figure.error)
            assert value in shown and "".join(value.split()) in printed
    for gap in found.gaps:
        assert gap.reason in shown
    assert run("diagnose", model, "--json", "d.json").exit_code == 10  # it is there


def test_original_and_rewritten_side_by_side(model: str) -> None:
    made = run(
        "convert", model, "--estimator", "analytic", "--allow", "all", "--out", "out",
        "--min-width", 4,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    result = run(
        "diagnose", "--compare", "out", "out", "--data", "model.py:train", "--draws", 1,
        "--only", "capacity", "--only", "naswot", "--json", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    first, second = read(result.output)
    assert first.value("capacity", "bits") != second.value("capacity", "bits")
    shown = run("diagnose", "--compare", model, "out", "--gaussian", "--draws", 0, "--only", "zico")
    assert shown.exit_code == 0 and "model.py against out" in shown.output


def test_what_is_refused(model: str) -> None:
    for arguments, code, words in (
        ([], 2, "name one MODEL"),
        ([model, "--compare", model, model], 2, "name one MODEL"),
        ([model, "--data", "model.py:train", "--gaussian"], 2, "exclude each other"),
        ([model, "--only", "nowot"], 2, "unknown diagnostic"),
        ([model, "--data", "model.py:wrong"], 2, "the model has 3 outputs"),
        ([model, "--data", "model.py:alone"], 2, "give pairs"),
        ([model, "--data", "model.py:none"], 3, "gives no batch"),
        ([model, "--data", "model.py:absent"], 3, "absent"),
        ([model, "--draws", "-1"], 2, "draws"),
    ):
        result = run("diagnose", *arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert words in result.output
