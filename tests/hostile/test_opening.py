"""A stranger's folder: what runs when it is opened, and what its fields can reach."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from rich.console import Console

import cerewrite
from cerewrite import ir, output, reporter
from cerewrite.errors import CerewriteError, LoadError, PlanError, StalePlanError
from cerewrite.frontend.loading import known
from tests.cli.running import run
from tests.conftest import CHAIN

PLANTED = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
OPENING = (("verify",), ("bench", "--runs", 5), ("export", "--out", "x.onnx"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file and its conversion."""
    home = tmp_path_factory.mktemp("converted")
    (home / "model.py").write_text(dedent(CHAIN))
    options = ("--gain", "he", "--estimator", "analytic", "--min-width", 8, "--out", home / "out")
    result = run("convert", home / "model.py", *options)
    assert result.exit_code == 0, result.output
    return home


@pytest.fixture
def folder(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own copy of it; its parent is the working directory."""
    shutil.copytree(converted, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    cerewrite.frontend.loading.remember("model.py:build_model")
    return Path("out")


@pytest.fixture
def stranger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as another user finds it, with a generated file that does something else."""
    monkeypatch.setenv("CEREWRITE_CACHE", str(folder.resolve().parent / "another-cache"))
    monkeypatch.setattr(known, "_named", set())
    file = folder / output.MODULE
    file.write_text(PLANTED + file.read_text())
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / output.PLAN
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.thorough
def test_the_users_own_folder_opens_and_runs_no_generated_file(folder: Path) -> None:
    file = folder / output.MODULE
    file.write_text(PLANTED + file.read_text())
    for command, *more in OPENING[::2]:
        result = run(command, folder, *more)
        assert result.exit_code == 0, result.output
    cerewrite.load(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "command",
    [OPENING[0], *(pytest.param(more, marks=pytest.mark.thorough) for more in OPENING[1:])],
    ids=lambda command: str(command[0]),
)
def test_a_strangers_folder_runs_nothing_until_it_is_trusted(
    stranger: Path, command: tuple[Any, ...]
) -> None:
    name, *more = command
    refused = run(name, stranger, *more)
    assert refused.exit_code == LoadError.exit_code
    assert "--trust" in refused.stderr and "--model" in refused.stderr
    assert not (stranger / "ran").exists()
    given = run(name, stranger, *more, "--model", "model.py:build_model")
    assert given.exit_code == 0, given.output
    assert not (stranger / "ran").exists()


@pytest.mark.thorough
def test_trust_runs_the_generated_file(stranger: Path) -> None:
    assert run("verify", stranger, "--trust").exit_code == 0
    assert (stranger / "ran").exists()
    (stranger / "ran").unlink()
    with pytest.raises(LoadError, match="never converted by you"):
        cerewrite.load(stranger)
    cerewrite.load(stranger, trust=True)
    assert (stranger / "ran").exists()


@pytest.mark.parametrize("name", ["evil.py", "./evil.py", "link.py:build_model", "x/../evil.py"])
def test_a_factory_inside_the_folder_is_never_run(folder: Path, name: str) -> None:
    (folder / "evil.py").write_text(PLANTED)
    (folder / "x").mkdir()
    (folder / "link.py").symlink_to("evil.py")
    cerewrite.frontend.loading.remember(f"{folder}/evil.py")
    edit(folder, source=name)
    with pytest.raises(LoadError, match="lies in the folder"):
        cerewrite.load(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "source", ["os:abort", "../other.py", "/elsewhere/other.py:f", "pytest:main", "antigravity:fly"]
)
def test_a_factory_that_was_never_named_is_not_run(folder: Path, source: str) -> None:
    Path("other.py").write_text(PLANTED)
    edit(folder, source=source)
    with pytest.raises(LoadError):
        cerewrite.load(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "source", ["a b", "x.py:f()", "x.py\n", "os;system", "a:b:c", "x.py:__import__('os')", 5]
)
def test_a_source_that_is_none_is_refused_by_name(folder: Path, source: Any) -> None:
    edit(folder, source=source)
    with pytest.raises(PlanError, match=r"plan\.json\.source: expected"):
        cerewrite.load(folder)


INJECTED = 'Net"""\nfrom pathlib import Path\nPath("ran").touch()\n"""'


def test_the_models_name_cannot_become_code(folder: Path) -> None:
    edit(folder, model=INJECTED)
    result = run("apply", folder / output.PLAN, "model.py", "--out", "again")
    assert result.exit_code == PlanError.exit_code
    assert "plan.json.model: expected a dotted identifier" in result.stderr
    assert not Path("again").exists() and not Path("ran").exists()


def test_a_plan_made_in_python_cannot_either(folder: Path, tmp_path: Path) -> None:
    plan = output.read_record(ir.Plan, folder / output.PLAN)
    model = cerewrite.load(folder)
    with pytest.raises(PlanError, match=r"plan\.model: expected a dotted identifier"):
        cerewrite.save(tmp_path / "made", model, dataclasses.replace(plan, model=INJECTED))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "Linear"}, "plan.model is Linear, but the model is a Sequential"),
        ({"baseline": {"params": 14000}, "budgets": []}, "plan.baseline.params is 14,000, but"),
    ],
)
def test_what_a_plan_says_of_its_model_is_compared(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    data = json.loads((folder / output.PLAN).read_text())
    for key, value in change.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    plan = ir.loads(ir.Plan, json.dumps(data), source="plan")
    original = cerewrite.load(folder)
    with pytest.raises(StalePlanError, match=message):
        cerewrite.apply(plan, cerewrite.revert(original))


def test_a_moved_folder_says_what_to_pass(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "deep" / "er" / "moved"
    shutil.copytree(folder, moved)
    with pytest.raises(LoadError, match="was moved") as caught:
        cerewrite.load(moved)
    assert "load(folder, model)" in caught.value.advice and "--model" in caught.value.advice
    result = run("verify", moved, "--model", "model.py:build_model")
    assert result.exit_code == 0, result.output


def test_a_folder_moved_with_its_model_opens_after_one_word(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tree" / "out")
    shutil.copy("model.py", tmp_path / "tree" / "model.py")
    assert run("verify", tmp_path / "tree" / "out", "--trust").exit_code == 0


@pytest.mark.parametrize("end", ["\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202e", "\r", "[red]"])
def test_nothing_steers_the_terminal(folder: Path, end: str) -> None:
    """Escape sequences in an artefact are refused; markup is shown as it is."""
    text = (folder / output.REPORT).read_text()
    data = json.loads(text)
    data["analysis"]["layers"][0]["name"] = f"layer{end}"
    path = folder / output.REPORT
    path.write_text(json.dumps(data))
    if end != "[red]":
        with pytest.raises(PlanError, match=r"layers\[0\]\.name: expected one line") as caught:
            output.read_record(ir.Report, path)
        assert end not in str(caught.value)
    else:
        file = io.StringIO()
        report = output.read_record(ir.Report, path)
        reporter.print_report(report, Console(file=file, width=120), verbose=True)
        assert "layer[red]" in file.getvalue()


def test_errors_and_commands_print_no_escape_sequences(model: Path) -> None:
    error = CerewriteError("a\x1b[31mb", advice="c\x1b]0;d\x07")
    assert "\x1b" not in str(error) and "\\x1b[31m" in str(error)
    result = run("plan", "model\x1b[2J.py")
    assert result.exit_code == LoadError.exit_code and "\x1b" not in result.stderr


@pytest.mark.thorough
def test_a_name_of_the_users_own_module_is_shown_harmless(
    write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(
        """
        import torch
        from collections import OrderedDict
        from torch import nn
        def build_model():
            layers = OrderedDict()
            for i in range(4):
                layers[f"l{i}\\x1b[31m<b>"] = nn.Linear(16, 16)
                layers[f"r{i}"] = nn.ReLU()
            return nn.Sequential(layers)
        def example_inputs():
            return torch.ones(2, 16)
        """
    )
    monkeypatch.chdir(path.parent)
    result = run("analyze", "model.py", "--gain", "he", "--html", "page.html", "-v")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "l0\\x1b[31m<b>" in result.output
    page = Path("page.html").read_text()
    assert "\x1b" not in page and "l0\\x1b[31m&lt;b&gt;" in page
