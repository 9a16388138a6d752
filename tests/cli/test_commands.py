"""What the commands print and write."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cerewrite import ir, output
from cerewrite.api import saving
from tests.cli.running import FILES, listing, run
from tests.conftest import ROOT


def test_help_names_every_command() -> None:
    text = run("--help").output
    commands = (
        "analyze", "plan", "convert", "apply", "export", "verify", "bench", "explain", "list"
    )  # fmt: skip
    assert all(f"\n  {command}  " in text for command in commands)
    for command in commands:
        result = run(command, "--help")
        assert result.exit_code == 0
        assert result.output.startswith(f"Usage: main {command}")


def test_analyze(model: Path) -> None:
    result = run("analyze", "model.py", "--estimator", "analytic")
    assert result.exit_code == 0
    assert result.stderr == ""
    for text in ("nu", "kappa", "f_up", "f_dn", "traced by export"):
        assert text in result.output
    assert listing(model.parent) == {"model.py"}


def test_analyze_writes_json_and_html(model: Path) -> None:
    assert (
        run(
            "analyze", "model.py", "--json", "a.json", "--html", "a.html", "--estimator", "analytic"
        ).exit_code
        == 0
    )
    analysis = output.read_record(ir.Analysis, Path("a.json"))
    assert analysis.model == "Sequential"
    assert Path("a.html").read_text().lower().startswith("<!doctype html>")
    again = run("analyze", "model.py", "--json", "a.json", "--estimator", "analytic")
    assert again.exit_code == 10
    assert "a.json: exists" in again.stderr
    assert (
        run(
            "analyze", "model.py", "--json", "a.json", "--force", "--estimator", "analytic"
        ).exit_code
        == 0
    )


def test_json_on_standard_output_is_json_alone(model: Path) -> None:
    model.write_text("print('loading')\n" + model.read_text())
    result = run("analyze", "model.py", "--json", "-", "--estimator", "analytic")
    assert result.exit_code == 0
    assert json.loads(result.stdout.removeprefix("loading\n"))["model"] == "Sequential"
    assert (
        json.loads(run("plan", "model.py", "--out", "-", "--estimator", "analytic").stdout[8:])[
            "objective"
        ]
        == "primal"
    )


@pytest.mark.thorough
def test_plan_apply_verify_export(model: Path) -> None:
    assert run("plan", "model.py", "--out", "plan.json", "--estimator", "analytic").exit_code == 0
    plan = output.read_record(ir.Plan, Path("plan.json"))
    assert plan.splits
    applied = run("apply", "plan.json", "model.py", "--out", "out")
    assert applied.exit_code == 0, applied.output
    assert "written to out" in applied.output
    assert listing(Path("out")) == FILES
    written = saving.read_plan(Path("out"))
    assert written.source == "../model.py:build_model"
    assert dataclasses.replace(written, renamed=(), source="") == plan
    verified = run("verify", "out")
    assert verified.exit_code == 0
    assert "passed  membership" in verified.output
    assert "FAILED" not in verified.output
    exported = run("export", "out", "--out", "net.onnx")
    assert exported.exit_code == 0, exported.output
    assert "parity at batch 7: passed" in exported.output
    assert Path("net.onnx").stat().st_size > 0
    assert run("export", "out", "--out", "net.onnx").exit_code == 10


def test_convert(model: Path) -> None:
    result = run(
        "convert",
        "model.py",
        "--budget",
        "params",
        "--out",
        "out",
        "--onnx",
        "-v",
        "--estimator",
        "analytic",
    )
    assert result.exit_code == 0, result.output
    for text in ("Splits", "Checks", "Before and after", "relative error", "written to out"):
        assert text in result.output
    assert listing(Path("out")) == FILES | {output.ONNX}
    report = output.read_record(ir.Report, Path("out") / output.REPORT)
    assert report.plan is not None
    assert 0.99 <= report.plan.planned.params / report.plan.baseline.params <= 1
    assert report.plan.planned.log_variance < report.plan.baseline.log_variance
    assert [name for name, _ in report.seconds][0] == "load"  # noqa: RUF015
    assert listing(model.parent) == {"model.py", "out"}


@pytest.mark.thorough
def test_convert_without_a_folder_writes_nothing(model: Path) -> None:
    result = run("convert", "model.py", "--estimator", "analytic")
    assert result.exit_code == 0
    assert "nothing was written" in result.output
    assert "  next    cerewrite convert model.py --out DIR" in result.output
    lines = result.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert listing(model.parent) == {"model.py"}


def test_dry_run_changes_and_writes_nothing(model: Path) -> None:
    result = run(
        "convert", "model.py", "--out", "out", "--onnx", "--dry-run", "--estimator", "analytic"
    )
    assert result.exit_code == 0
    assert "region split into" in result.output
    assert "dry run" in result.output
    assert listing(model.parent) == {"model.py"}


@pytest.mark.thorough
def test_quiet_prints_nothing(model: Path) -> None:
    result = run("convert", "model.py", "--out", "out", "--quiet", "--estimator", "analytic")
    assert (result.exit_code, result.output) == (0, "")
    assert run("verify", "out", "-q").output == ""


@pytest.mark.thorough
def test_force_replaces_an_earlier_conversion_only(model: Path) -> None:
    assert (
        run("convert", "model.py", "--out", "out", "-q", "--estimator", "analytic").exit_code == 0
    )
    assert (
        run("convert", "model.py", "--out", "out", "-q", "--estimator", "analytic").exit_code == 10
    )
    assert (
        run(
            "convert",
            "model.py",
            "--out",
            "out",
            "-q",
            "--force",
            "--seed",
            2,
            "--estimator",
            "analytic",
        ).exit_code
        == 0
    )
    assert saving.read_plan(Path("out")).seed == 2
    Path("out", "notes.txt").write_text("mine")
    assert (
        run(
            "convert", "model.py", "--out", "out", "-q", "--force", "--estimator", "analytic"
        ).exit_code
        == 10
    )
    assert Path("out", "notes.txt").read_text() == "mine"


@pytest.mark.thorough
def test_same_seed_same_bytes(model: Path) -> None:
    for name in ("first", "second"):
        assert (
            run("convert", "model.py", "--out", name, "-q", "--estimator", "analytic").exit_code
            == 0
        )
    for name in (output.PLAN, output.WEIGHTS, output.MODULE):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


@pytest.mark.thorough
@pytest.mark.xdist_group("clock")
def test_bench(model: Path) -> None:
    assert (
        run(
            "convert",
            "model.py",
            "--bench",
            "--runs",
            5,
            "--batch",
            2,
            "--out",
            "d",
            "--estimator",
            "analytic",
        ).exit_code
        == 0
    )
    report = json.loads((model.parent / "d" / output.REPORT).read_text())
    assert [t["engine"] for t in report["timings"]] == ["eager", "onnxruntime", "step"]
    result = run("bench", "d", "--engine", "eager", "--batch", 3, "--runs", 5, "--json", "t.json")
    assert result.exit_code == 0
    assert "eager, batch 3" in result.output and "times the original" in result.output
    (timing,) = json.loads((model.parent / "t.json").read_text())
    assert timing["runs"] == 5 and timing["original"] > 0
    assert run("bench", "nowhere").exit_code != 0


def test_list() -> None:
    result = run("list")
    assert result.exit_code == 0
    for title, name in (
        ("operators:", "conv"),
        ("estimators:", "analytic"),
        ("budgets:", "params"),
        ("measures:", "nu"),
        ("passes:", "split_layers"),
    ):
        assert f"{title}\n" in result.output
        assert f"\n  {name} " in result.output


@pytest.mark.thorough
def test_module_runs_as_a_program(model: Path) -> None:
    command = [sys.executable, "-m", "cerewrite", "plan", str(model), "--out", "-"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert json.loads(result.stdout)["objective"] == "primal"
    assert result.stderr == ""
