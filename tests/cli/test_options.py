"""What the options of analyses and plans do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerewrite import ir, output
from cerewrite.api import saving, speed
from tests.cli.running import run


def test_options_of_the_analysis(model: Path) -> None:
    options = ("--parametrization", "standard", "--gain", "1.5", "--input", "3,16")
    result = run(
        "analyze", "model.py:build_model", *options, "--json", "-", "--estimator", "analytic"
    )
    data = json.loads(result.stdout)
    assert (data["parametrization"], data["gain"]) == ("standard", "1.5")


def test_convert_options_reach_the_plan(model: Path) -> None:
    options = ("--channel-multiple", 4, "--min-width", 8, "--max-multiplicity", 6, "--seed", 3)
    result = run(
        "plan", "model.py", "--out", "-", "--objective", "dual", *options, "--estimator", "analytic"
    )
    plan = ir.loads(ir.Plan, result.stdout, source="stdout")
    assert (plan.objective, plan.seed) == ("dual", 3)
    for split in plan.splits:
        assert split.multiplicity <= 6
        assert all(width % 4 == 0 and width >= 8 for width in split.widths)


@pytest.mark.thorough
def test_several_budgets_all_hold(model: Path) -> None:
    budgets = ("--budget", "params=0.9x", "--budget", "flops=0.8x")
    plan = ir.loads(
        ir.Plan,
        run("plan", "model.py", "--out", "-", *budgets, "--estimator", "analytic").stdout,
        source="-",
    )
    assert plan.planned.params <= 0.9 * plan.baseline.params
    assert plan.planned.flops <= 0.8 * plan.baseline.flops


def test_memory_budget(model: Path) -> None:
    result = run(
        "plan",
        "model.py",
        "--budget",
        "memory=0.8x",
        "--memory-batch",
        64,
        "-v",
        "--estimator",
        "analytic",
    )
    assert result.exit_code == 0, result.output
    assert "memory at most" in result.output and "batch 64" in result.output
    assert "memory=0.8x" in result.output and "reachable" in result.output
    assert (
        run("plan", "model.py", "--budget", "memory=1kB", "--estimator", "analytic").exit_code == 6
    )
    assert (
        run("plan", "model.py", "--budget", "memory=3bits", "--estimator", "analytic").exit_code
        == 2
    )


@pytest.mark.thorough
def test_latency_budget(model: Path, counted_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    built = ir.Timing("eager", 4, 1, 1.0, 0.01, 1.9, 0.01, 15)
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (built,))
    budget = ("--budget", "params", "--budget", "latency=2.0x", "--latency-batch", 4)
    budget += ("--widths", "free", "--gain", "he", "--estimator", "analytic")
    result = run("plan", "model.py", *budget, "-v")
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert "latency at most" in shown and "reachable latency from" in shown
    result = run("convert", "model.py", *budget, "-v")
    assert result.exit_code == 0
    assert "asked     at most 2.000x of the original's time (eager, batch 4" in result.output
    assert (
        run("plan", "model.py", "--budget", "latency=3parsecs", "--estimator", "analytic").exit_code
        == 2
    )


@pytest.mark.thorough
def test_initialisation_is_recorded_and_applied_again(model: Path) -> None:
    options = ("--init", "orthogonal", "--exit-scale", "explicit")
    first = run("convert", "model.py", *options, "--out", "first", "--estimator", "analytic")
    assert first.exit_code == 0, first.output
    plan = saving.read_plan(Path("first"))
    assert (plan.init, plan.exit_scale) == ("orthogonal", "explicit")
    again = run("apply", "first/plan.json", "model.py", "--out", "second")
    assert again.exit_code == 0, again.output
    weights = [(Path(name) / output.WEIGHTS).read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    assert run("verify", "first").exit_code == 0
    wrong = run("plan", "model.py", "--init", "gian", "--estimator", "analytic")
    assert wrong.exit_code == 2 and "did you mean 'gain'?" in wrong.stderr
    text = Path("first/plan.json").read_text()
    Path("edited.json").write_text(text.replace('"orthogonal"', '"orthognal"'))
    edited = run("apply", "edited.json", "model.py", "--out", "third")
    assert edited.exit_code == 6 and "no initialiser" in edited.stderr


@pytest.mark.thorough
def test_warm_start(model: Path) -> None:
    import numpy as np

    np.save("x.npy", np.random.default_rng(0).standard_normal((64, 16)))
    options = ("--weights", "transfer", "--calibration", "x.npy")
    first = run("convert", "model.py", *options, "--out", "first", "--estimator", "analytic")
    assert first.exit_code == 0, first.output
    assert "warm start" in first.output and "before any training" in first.output
    again = run("apply", "first/plan.json", "model.py", "--calibration", "x.npy", "--out", "again")
    assert again.exit_code == 0, again.output
    weights = [(Path(name) / output.WEIGHTS).read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    assert (
        run("convert", "model.py", *options, "--dry-run", "--estimator", "analytic").exit_code == 0
    )
    np.save("y.npy", np.zeros((64, 5)))
    wrong = run(
        "convert",
        "model.py",
        "--weights",
        "transfer",
        "--calibration",
        "y.npy",
        "--estimator",
        "analytic",
    )
    assert wrong.exit_code == 7 and "does not take the calibration inputs [48, 5]" in wrong.stderr
    unused = run("convert", "model.py", "--calibration", "x.npy", "--estimator", "analytic")
    assert unused.exit_code == 2 and "draws its weights anew" in unused.stderr


def test_the_default_measures_within_a_time_limit(model: Path) -> None:
    result = run("plan", "model.py", "--input", "4,16", "--draws", 8, "--out", "-")
    plan = ir.loads(ir.Plan, result.stdout, source="stdout")
    assert (plan.estimator, plan.draws) == ("auto", 8)
    shown = run("analyze", "model.py", "--input", "4,16", "--draws", 8)
    assert shown.stdout.count("docs/theory.md 31") == 1
    assert "auto: 8 draws, layers by 2 draws of the jackknife" in shown.stdout
    for wrong in ("nan", "-3", "0"):
        refused = run("analyze", "model.py", "--seconds", wrong)
        assert refused.exit_code == 2 and "time limit" in refused.stderr


def test_the_promise_stands_beside_what_was_measured(model: Path) -> None:
    options = ("--input", "4,16", "--draws", 8, "--out", "out")
    result = run("convert", "model.py", *options)
    assert result.exit_code == 0, result.output
    report = json.loads(Path("out", "report.json").read_text())
    assert report["promise"]["promised"] > 0
    assert "promise" in {check["name"] for check in report["verification"]["checks"]}
    assert report["analysis"]["nu"]["value"] == report["plan"]["baseline"]["nu"]
    assert report["plan"]["draws"] == 8
    assert "easure" in result.stdout
