from __future__ import annotations

import json
import signal
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import example, hugging_face
from benchmarks.zoo.__main__ import is_left
from benchmarks.zoo.catalogue import SOURCES, Entry, stratified
from benchmarks.zoo.processes import Limits, conclude, work
from benchmarks.zoo.store import Store
from benchmarks.zoo.table import OUTCOMES, render
from benchmarks.zoo.worker import main, work_on
from tests.models import chain


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if float(x.sum()) > 0 else x


class Unruled(nn.Module):
    """A running sum, which has no closed form, in front of the read-out."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.body, self.last = chain(widths, inputs=16, outputs=8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).cumsum(1))


class Silent(nn.Module):
    """A branch that starts at zero, beside a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.last = nn.Linear(16, 32), nn.Linear(32, 2)
        self.branch = chain([32, 32], inputs=32, outputs=32)
        nn.init.zeros_(self.branch.get_parameter("4.weight"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.last(x + self.branch(x))


def damaged() -> nn.Module:
    raise RuntimeError("planted")


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (lambda: example("mlp_digits")[0], "converted"),
    "short": (lambda: chain([8], inputs=16), "declined"),
    "unruled": (lambda: Unruled([32, 32]), "converted"),
    "unruled_short": (lambda: Unruled([16]), "declined"),
    "damaged": (damaged, "not built"),
}


@pytest.fixture
def record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], dict[str, Any]]:
    """What the worker prints about one of `MODELS`."""

    def run(name: str) -> dict[str, Any]:
        def build(entry: Entry) -> tuple[nn.Module, tuple[Tensor, ...], int]:
            model = MODELS[entry.model][0]()
            width = next(model.parameters()).shape[1]
            return model, (torch.randn(2, width),), 1

        monkeypatch.setattr("benchmarks.zoo.worker.build", build)
        main(f"tests/{name}", "tests", "small")
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.mark.thorough
def test_records_fill_the_table(record: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    store = Store(tmp_path / "coverage.json", "code")
    for name, (_, outcome) in MODELS.items():
        found = record(name)
        assert found["outcome"] == outcome, found
        assert found["outcome"] in OUTCOMES
        store.put("models", found)
    page = render(store.parts, 7)
    assert "**5 of 7 models so far**" in page
    assert "| converted | 2 |" in page
    assert "| code | models | tests |" in page
    assert "| one-hidden-layer | 2 | 2 |" in page
    assert "RuntimeError: planted" in page
    records = store.parts["models"]
    scopes = {name: r.get("scope") for name, r in records.items() if "unruled" not in name}
    assert scopes == {"tests/mlp": "block", "tests/short": "network", "tests/damaged": None}
    estimators = [r.get("estimator") for r in records.values()]
    assert estimators == ["analytic", "analytic", "jackknife", "analytic", None]
    assert records["tests/unruled_short"]["error"].startswith("PlanError: Unruled has no region")
    assert "1 by the closed form, 1 by the jackknife" in page
    assert "tests/unruled (NoClosedFormError: no closed form for the operator 'cumsum')" in page
    (row,) = (line for line in page.splitlines() if line.startswith("| tests/mlp "))
    assert "| block | 1 | converted |" in row


def test_a_branch_that_starts_at_zero_is_planned_awake(
    record: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "silent", (Silent, "converted"))
    found = record("silent")
    assert (found["outcome"], found["gain"]) == ("converted", "nonzero"), found
    assert "zeros lets no signal through" in render({"models": {}, "onnx": {}})


def test_a_run_picks_up_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "coverage.json"
    Store(path, "old").put("models", {"name": "a/b", "outcome": "declined"})
    assert Store(path, "old").has("models", "a/b", any_code=False)
    assert not Store(path, "new").has("models", "a/b", any_code=False)
    assert Store(path, "new").has("models", "a/b", any_code=True)
    assert not Store(path, "old").has("onnx", "a/b", any_code=True)
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    assert not Store(path, "old").has("models", "a/b", any_code=True)


def test_models_are_done_again_by_outcome_reason_or_refusal(tmp_path: Path) -> None:
    store = Store(tmp_path / "coverage.json", "old")
    refused = {"outcome": "declined", "error": "no rule for 'div'", "refusals": {"tied": 2}}
    store.put("models", {"name": "a/refused", **refused})
    store.put("models", {"name": "a/fine", "outcome": "converted"})

    def left(code: str, *patterns: str) -> list[str]:
        store.code = code
        options = Namespace(any_code=True, again=list(patterns))
        names = ("a/refused", "a/fine", "a/new")
        return [name for name in names if is_left(store, "models", name, options)]

    assert left("new") == ["a/new"]
    for pattern in ("declined", "*'div'*", "tied"):
        assert left("new", pattern) == ["a/refused", "a/new"]
        assert left("old", pattern) == ["a/new"]
    assert left("new", "conv*", "decl*") == ["a/refused", "a/fine", "a/new"]


@pytest.mark.thorough
def test_a_process_of_its_own_says_what_became_of_a_model() -> None:
    entry = Entry("timm/no_such_model", "timm", "none")
    record = work(get_context("spawn"), entry, Limits(60, 10))
    assert (record["name"], record["outcome"], record["stage"]) == (entry.name, "not built", "load")
    assert record["wall"] > 0


def test_what_a_process_knew_when_it_was_stopped_is_kept() -> None:
    entry, limits = Entry("timm/a", "timm", "b"), Limits(60, 10)
    begun, exporting, done = (
        json.dumps(record)
        for record in (
            {"stage": "trace"},
            {"stage": "export", "rung": "export", "outcome": "converted"},
            {"stage": "export", "outcome": "converted", "seconds": {"trace": 1.0}},
        )
    )

    def outcome(lines: list[str], code: int | None) -> str:
        record = conclude(entry, lines, code, limits)
        assert record["name"] == "timm/a" and "seconds" in record
        return f"{record['outcome']} at {record['stage']}, {record.get('rung')}"

    assert outcome([], 1) == "crashed at load, None"
    assert outcome([begun], None) == "out of time at trace, None"
    assert outcome([begun, exporting], -signal.SIGXCPU) == "out of time at export, export"
    assert outcome([begun, exporting, done], 0) == "converted at export, None"


def test_a_selection_takes_every_family_in_turn() -> None:
    entries = [Entry(f"timm/{f}{i}", "timm", f) for f in "ab" for i in range(3)]
    assert [entry.model for entry in stratified(entries, 4)] == ["a0", "b0", "a1", "b1"]


def test_hugging_face_s_architectures_are_named_by_class_and_kind() -> None:
    entries = SOURCES["transformers"]()
    assert len({entry.model for entry in entries}) == len(entries) >= 70
    assert {entry.family for entry in entries} == set(hugging_face.KINDS)
    assert all(entry.name == f"transformers/{entry.model}" for entry in entries)


@pytest.mark.thorough
def test_hugging_face_s_models_are_planned_at_network_scope() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    record = work_on(Entry("transformers/GPT2LMHeadModel", "transformers", "causal"))
    assert record["outcome"] == "converted", record
    assert (record["scope"], record["pixels"]) == ("network", 0)
    page = render({"models": {"a": record | {"code": "x", "wall": 1.0}}, "onnx": {}})
    assert "| | transformers | |" in page
    assert "| transformers/GPT2LMHeadModel |  | recorder |" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.model for entry in SOURCES["transformers"]()])
def test_hugging_face_s_models_are_tiny_untied_and_without_caches(name: str) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    model, inputs = hugging_face.build(name)
    assert sum(p.numel() for p in model.parameters()) < 200_000
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(model.parameters()))
    with torch.no_grad():
        outputs = model(**inputs)
    assert isinstance(outputs, Tensor) or not {"past_key_values", "cache"} & set(outputs)
