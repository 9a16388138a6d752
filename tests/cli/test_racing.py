"""``cerewrite race``: a model's file with its data and loss, or those that are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import listing, run
from tests.conftest import CHAIN, WriteModel

HOOKS = """
    def training_data():
        x = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
        return x, x[:, :5].argmax(1)

    def loss():
        return nn.CrossEntropyLoss()
"""
FAST = ("--estimator", "analytic", "--seeds", 2, "--steps", 2, "--rates",
        "0.01", "--seconds", 1000, "--pick", "held")  # fmt: skip


@pytest.fixture
def model(write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_model(CHAIN + HOOKS)
    monkeypatch.chdir(path.parent)
    return path


@pytest.mark.thorough
def test_a_race_prints_both_comparisons_and_goes_on_from_its_records(model: Path) -> None:
    result = run("race", "model.py", *FAST, "--json", "r.json", "--html", "r.html")
    assert result.exit_code == 0, result.output
    for words in ("At equal steps", "At equal seconds", "Verdict", "baseline", "--pick held"):
        assert words in result.output
    assert listing(model.parent) == {"model.py", "model.race", "r.json", "r.html"}
    assert listing(model.parent / "model.race") == {"race.jsonl"}
    record = json.loads((model.parent / "r.json").read_text())
    assert record["winner"] in ("baseline", "held")
    page = (model.parent / "r.html").read_text()
    drawn = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["race"]
    assert page.count('data-chart="race"') == 2
    assert {point["name"] for point in drawn} == {"baseline", "held"}
    curves = [(one["name"], at) for one in record["entrants"] for at in one["curve"]]
    parts = ("steps", "seconds", "loss")
    assert drawn == [{"name": name} | {key: at[key] for key in parts} for name, at in curves]
    lines = (model.parent / "model.race" / "race.jsonl").read_text()
    again = run("race", "model.py", *FAST)
    assert again.exit_code == 0
    assert (model.parent / "model.race" / "race.jsonl").read_text() == lines


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def training_data", "def other", "defines no 'training_data'"),
        ("def loss", "def other", "defines no 'loss'"),
        ("return nn.CrossEntropyLoss()", "return 3", "of type int, not a loss"),
        ("return x, x[:, :5].argmax(1)", "return 3", "of type int, not data"),
        ("return x, x[:, :5].argmax(1)", "return x, x[:, :5].argmax(1)[:9]", "one example per row"),
        ("torch.randn(60, 16,", "torch.randn(60, 15,", "the model raises on a batch of the data"),
        ("x = torch", "raise ValueError('no file'); x = torch", "ValueError: no file (line"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(model: Path, old: str, new: str, words: str) -> None:
    model.write_text(model.read_text().replace(old, new))
    result = run("race", "model.py", *FAST)
    assert result.exit_code in (3, 11) and words in result.stderr
    assert "model.race" not in listing(model.parent) or "data" not in words


def test_rates_are_numbers(model: Path) -> None:
    result = run("race", "model.py", "--rates", "0.1,x")
    assert result.exit_code == 2 and "is not RATE,RATE" in result.stderr


def test_options_without_a_use_are_refused(model: Path) -> None:
    result = run("race", "model.py", "--step-batch", 8)
    assert result.exit_code == 2 and "--step-batch has no use in a race" in result.stderr


def test_data_and_loss_may_be_named(model: Path, write_model: WriteModel) -> None:
    model.write_text(model.read_text().replace("def loss", "def no_loss"))
    write_model("from torch.nn.functional import binary_cross_entropy as fit\n", "other.py")
    result = run("race", "model.py", *FAST, "--data", "other.py:batches", "--loss", "other.py:fit")
    assert result.exit_code == 3 and "defines no 'batches'" in result.stderr
    result = run("race", "model.py", *FAST, "--loss", "other.py:fit")
    assert result.exit_code == 11 and "the loss raises on a batch of the data" in result.stderr
