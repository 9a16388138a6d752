"""The command line: what it prints and writes, and how every bad input is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cerewrite import artifacts, ir, saving
from cerewrite.cli import main
from tests.conftest import ROOT, WriteModel

FILES = {artifacts.PLAN, artifacts.WEIGHTS, artifacts.REPORT, artifacts.PAGE, artifacts.MODULE}


def run(*arguments: object) -> Result:
    """Run a command in this process; an exception that is none of ours fails the test."""
    result = CliRunner().invoke(main, [str(item) for item in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def model(write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file; its folder is the working directory."""
    path = write_model()
    monkeypatch.chdir(path.parent)
    return path


def listing(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


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
    result = run("analyze", "model.py")
    assert result.exit_code == 0
    assert result.stderr == ""
    for text in ("nu", "kappa", "f_up", "f_dn", "traced by export"):
        assert text in result.output
    assert listing(model.parent) == {"model.py"}


def test_analyze_writes_json_and_html(model: Path) -> None:
    assert run("analyze", "model.py", "--json", "a.json", "--html", "a.html").exit_code == 0
    analysis = artifacts.read_record(ir.Analysis, Path("a.json"))
    assert analysis.model == "Sequential"
    assert Path("a.html").read_text().lower().startswith("<!doctype html>")
    again = run("analyze", "model.py", "--json", "a.json")
    assert again.exit_code == 10
    assert "a.json: exists" in again.stderr
    assert run("analyze", "model.py", "--json", "a.json", "--force").exit_code == 0


def test_json_on_standard_output_is_json_alone(model: Path) -> None:
    model.write_text("print('loading')\n" + model.read_text())
    result = run("analyze", "model.py", "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout.removeprefix("loading\n"))["model"] == "Sequential"
    assert json.loads(run("plan", "model.py", "--out", "-").stdout[8:])["objective"] == "primal"


def test_options_of_the_analysis(model: Path) -> None:
    options = ("--parametrization", "standard", "--gain", "1.5", "--input", "3,16")
    result = run("analyze", "model.py:build_model", *options, "--json", "-")
    data = json.loads(result.stdout)
    assert (data["parametrization"], data["gain"]) == ("standard", "1.5")


def test_plan_apply_verify_export(model: Path) -> None:
    assert run("plan", "model.py", "--out", "plan.json").exit_code == 0
    plan = artifacts.read_record(ir.Plan, Path("plan.json"))
    assert plan.splits
    applied = run("apply", "plan.json", "model.py", "--out", "out")
    assert applied.exit_code == 0, applied.output
    assert "written to out" in applied.output
    assert listing(Path("out")) == FILES
    assert dataclasses.replace(saving.read_plan(Path("out")), renamed=()) == plan
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
    result = run("convert", "model.py", "--budget", "params", "--out", "out", "--onnx")
    assert result.exit_code == 0, result.output
    for text in ("Splits", "Checks", "Before and after", "relative error", "written to out"):
        assert text in result.output
    assert listing(Path("out")) == FILES | {artifacts.ONNX}
    report = artifacts.read_record(ir.Report, Path("out") / artifacts.REPORT)
    assert report.plan is not None
    assert 0.99 <= report.plan.planned.params / report.plan.baseline.params <= 1
    assert report.plan.planned.log_variance < report.plan.baseline.log_variance
    assert [name for name, _ in report.seconds][0] == "load"  # noqa: RUF015
    assert listing(model.parent) == {"model.py", "out"}


def test_convert_options_reach_the_plan(model: Path) -> None:
    options = ("--channel-multiple", 4, "--min-width", 8, "--max-multiplicity", 6, "--seed", 3)
    result = run("plan", "model.py", "--out", "-", "--objective", "dual", *options)
    plan = ir.loads(ir.Plan, result.stdout, source="stdout")
    assert (plan.objective, plan.seed) == ("dual", 3)
    for split in plan.splits:
        assert split.multiplicity <= 6
        assert all(width % 4 == 0 and width >= 8 for width in split.widths)


def test_several_budgets_all_hold(model: Path) -> None:
    budgets = ("--budget", "params=0.9x", "--budget", "flops=0.8x")
    plan = ir.loads(ir.Plan, run("plan", "model.py", "--out", "-", *budgets).stdout, source="-")
    assert plan.planned.params <= 0.9 * plan.baseline.params
    assert plan.planned.flops <= 0.8 * plan.baseline.flops


def test_convert_without_a_folder_writes_nothing(model: Path) -> None:
    result = run("convert", "model.py")
    assert result.exit_code == 0
    assert "nothing was written" in result.output
    assert listing(model.parent) == {"model.py"}


def test_dry_run_changes_and_writes_nothing(model: Path) -> None:
    result = run("convert", "model.py", "--out", "out", "--onnx", "--dry-run")
    assert result.exit_code == 0
    assert "Splits" in result.output
    assert "dry run" in result.output
    assert listing(model.parent) == {"model.py"}


def test_quiet_prints_nothing(model: Path) -> None:
    result = run("convert", "model.py", "--out", "out", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert run("verify", "out", "-q").output == ""


def test_force_replaces_an_earlier_conversion_only(model: Path) -> None:
    assert run("convert", "model.py", "--out", "out", "-q").exit_code == 0
    assert run("convert", "model.py", "--out", "out", "-q").exit_code == 10
    assert run("convert", "model.py", "--out", "out", "-q", "--force", "--seed", 2).exit_code == 0
    assert saving.read_plan(Path("out")).seed == 2
    Path("out", "notes.txt").write_text("mine")
    assert run("convert", "model.py", "--out", "out", "-q", "--force").exit_code == 10
    assert Path("out", "notes.txt").read_text() == "mine"


def test_same_seed_same_bytes(model: Path) -> None:
    for name in ("first", "second"):
        assert run("convert", "model.py", "--out", name, "-q").exit_code == 0
    for name in (artifacts.PLAN, artifacts.WEIGHTS, artifacts.MODULE):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


def test_explain(model: Path) -> None:
    result = run("explain", "model.py", "2")
    assert result.exit_code == 0
    for text in ("2: width 64", "kappa", "f_up", "region", "interior"):
        assert text in result.output
    readout = run("explain", "model.py", "8").output
    assert "refused at 8" in readout
    assert "exit" in readout


def test_explain_an_unknown_layer(model: Path) -> None:
    result = run("explain", "model.py", "layer9")
    assert result.exit_code == 2
    assert "has no layer 'layer9'" in result.stderr


def test_list() -> None:
    result = run("list")
    assert result.exit_code == 0
    for title, name in (
        ("operators:", "conv"),
        ("estimators:", "analytic"),
        ("budgets:", "params"),
        ("measures:", "nu"),
        ("passes:", "split_conv"),
    ):
        assert f"{title}\n" in result.output
        assert f"\n  {name} " in result.output


UNTRACEABLE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x):
            if torch._C._len_torch_function_stack():
                raise RuntimeError("watched")
            return self.fc(x) if float(x.sum()) > 0 else x

    def example_inputs():
        return torch.ones(2, 16)
"""

BAD = {
    "two.py": "from torch import nn\na = nn.ReLU()\nb = nn.ReLU()\n",
    "none.py": "x = 3\n",
    "raises.py": "def build_model():\n    raise RuntimeError('no weights here')\n",
    "needs.py": "def wide(width, depth):\n    return None\n",
    "no_inputs.py": "from torch import nn\ndef build_model(): return nn.Linear(16, 4)\n",
    "untraceable.py": UNTRACEABLE,
}


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (["no/model.py"], 3, ["no/model.py: no such file", "check the path"]),
        (["modell.py"], 3, ["modell.py: no such file", "did you mean 'model.py'?"]),
        (["two.py"], 3, ["2 things in it yield a model: instance a, instance b", "two.py:a"]),
        (["none.py"], 3, ["found no function and no nn.Module", "def build_model()"]),
        (["raises.py"], 3, ["RuntimeError: no weights here (line 2", "mend that"]),
        (["needs.py:wide"], 3, ["needs arguments: width, depth", "without arguments"]),
        (["no.such.module:net"], 3, ["no module named 'no'", "install it"]),
        (["no_inputs.py"], 2, ["no example inputs", "--input"]),
        (["model.py", "--input", "2,17"], 4, ["(2, 17)", "16", "--input"]),
        (["model.py", "--input", "2,17x"], 2, ["not a shape", "1,3,224,224"]),
        (
            ["untraceable.py"],
            4,
            ["no tracer can follow", "export:", "recorder: RuntimeError: watched"],
        ),
        (["model.py", "--budget", "params=0.001x"], 6, ["params", "->"]),
        (["model.py", "--budget", "params=lots"], 2, ["'params=lots'", "params=0.5x"]),
        (["model.py", "--budget", "parms=1"], 2, ["unknown budget 'parms'", "did you mean"]),
        (["model.py", "--include", "layer9.*"], 2, ["layer9.*", "match"]),
        (["model.py", "--exclude", "type:Conv2d"], 2, ["Conv2d", "match"]),
        (["model.py", "--exclude", "*"], 6, ["->"]),
        (["model.py", "--estimator", "analitic"], 2, ["did you mean 'analytic'?"]),
        (["model.py", "--gain", "-1"], 2, ["-1", "he"]),
        (["model.py", "--objective", "both"], 2, ["'both' is not one of"]),
        (["model.py", "--scope", "galaxy"], 2, ["'galaxy' is not"]),
        (["model.py", "--onnx"], 2, ["--out DIR"]),
        (["model.py", "--out", "file"], 10, ["exists and is a file"]),
        (["model.py", "--out", "full"], 10, ["exists and is not empty", "--force"]),
        (["model.py", "--out", "file/out"], 10, ["cannot be written: Not a directory"]),
        (["model.py", "--out", "out", "--onnx", "--opset", "3"], 9, ["opset"]),
        ([], 2, ["Missing argument 'MODEL'"]),
        (["model.py", "--bugdet", "params"], 2, ["No such option", "--budget"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(
    model: Path, write_model: WriteModel, arguments: list[str], code: int, texts: list[str]
) -> None:
    for name, text in BAD.items():
        write_model(text, name)
    (model.parent / "file").write_text("")
    (model.parent / "full").mkdir()
    (model.parent / "full" / "mine.txt").write_text("mine")
    before = listing(model.parent)
    out = [] if "--out" in arguments or "--onnx" in arguments else ["--out", "out"]
    result = run("convert", *arguments, *out)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert listing(model.parent) == before
    assert listing(model.parent / "full") == {"mine.txt"}


def test_plan_for_another_model(model: Path, write_model: WriteModel) -> None:
    write_model(model.read_text().replace("64", "32"), "other.py")
    assert run("plan", "model.py", "--out", "plan.json", "-q").exit_code == 0
    result = run("apply", "plan.json", "other.py", "--out", "out")
    assert result.exit_code == 6
    assert "the plan was made for a Sequential with fingerprint" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{", 6, "plan.json: not JSON"),
        ('{"schema": 99}', 6, "schema 99"),
        (None, 10, "plan.json: cannot be read"),
    ],
)
def test_bad_plan_files(model: Path, text: str | None, code: int, message: str) -> None:
    if text is not None:
        Path("plan.json").write_text(text)
    result = run("apply", "plan.json", "model.py", "--out", "out")
    assert (result.exit_code, message in result.stderr) == (code, True)


@pytest.mark.parametrize(
    ("command", "damage", "code", "message"),
    [
        (["verify", "nowhere"], None, 10, "nowhere: no such folder"),
        (["verify", "."], None, 10, "plan.json: cannot be read"),
        (["verify", "out"], artifacts.WEIGHTS, 10, "not a whole safetensors file"),
        (["verify", "out"], artifacts.PLAN, 6, "not JSON"),
        (["export", "out", "--out", "a.onnx"], artifacts.WEIGHTS, 10, "not a whole safetensors"),
        (["export", "nowhere", "--out", "a.onnx"], None, 3, "nowhere: no such file"),
    ],
)
def test_damaged_folders(
    model: Path, command: list[str], damage: str | None, code: int, message: str
) -> None:
    if damage:
        assert run("convert", "model.py", "--out", "out", "-q").exit_code == 0
        path = Path("out", damage)
        path.write_bytes(path.read_bytes()[:-20])
    result = run(*command)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_failed_check_in_a_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cerewrite import verifier

    assert run("convert", "model.py", "--out", "out", "-q").exit_code == 0
    broken = ir.Verification((ir.Check("membership", False, "off by one at '2'"),))
    monkeypatch.setattr(verifier, "verify", lambda *arguments: broken)
    result = run("verify", "out")
    assert result.exit_code == 8
    assert "FAILED  membership: off by one at '2'" in result.stdout
    assert "out: 1 of 1 checks fail" in result.stderr


def test_module_runs_as_a_program(model: Path) -> None:
    command = [sys.executable, "-m", "cerewrite", "plan", str(model), "--out", "-"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert json.loads(result.stdout)["objective"] == "primal"
    assert result.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_leaves_nothing(
    write_model: WriteModel, number: signal.Signals, code: int
) -> None:
    path = write_model(
        "import time\nfrom torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 4)\n"
        "    def extra_repr(self):\n"
        "        print('working', flush=True)\n        time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "cerewrite", "convert", str(path)]
    command += ["--input", "2,4", "--out", str(path.parent / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite in the background of a shell ignores interrupts, and so would its children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == code
    assert listing(path.parent) == {"model.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_digits", "vgg_cnn", "resnet50"])
@pytest.mark.parametrize("objective", ["primal", "dual"])
def test_examples(tmp_path: Path, name: str, objective: str) -> None:
    out = tmp_path / "out"
    onnx = ["--onnx"] if objective == "primal" else []
    model = ROOT / "examples" / name / "model.py"
    result = run("convert", model, "--objective", objective, "--out", out, *onnx)
    assert result.exit_code == 0, result.output
    report = artifacts.read_record(ir.Report, out / artifacts.REPORT)
    assert report.plan is not None
    before, after = report.plan.baseline, report.plan.planned
    if objective == "primal":
        assert 0.99 * before.params <= after.params <= before.params
        assert after.log_variance < before.log_variance
        assert report.export is not None
        assert {1, 2, 7} <= {item.batch for item in report.export.parity}
        assert all(item.relative_error <= 1e-5 for item in report.export.parity)
    else:
        assert after.log_variance <= before.log_variance
        assert after.params < before.params
    assert run("verify", out, "-q").exit_code == 0


def test_bench(model: Path) -> None:
    assert (
        run("convert", "model.py", "--bench", "--runs", 5, "--batch", 2, "--out", "d").exit_code
        == 0
    )
    report = json.loads((model.parent / "d" / artifacts.REPORT).read_text())
    assert [t["engine"] for t in report["timings"]] == ["eager", "onnxruntime"]
    result = run("bench", "d", "--engine", "eager", "--batch", 3, "--runs", 5, "--json", "t.json")
    assert result.exit_code == 0
    assert "eager, batch 3" in result.output and "times the original" in result.output
    (timing,) = json.loads((model.parent / "t.json").read_text())
    assert timing["runs"] == 5 and timing["original"] > 0
    assert run("bench", "nowhere").exit_code != 0


def test_initialisation_is_recorded_and_applied_again(model: Path) -> None:
    options = ("--init", "orthogonal", "--exit-scale", "explicit")
    first = run("convert", "model.py", *options, "--out", "first")
    assert first.exit_code == 0, first.output
    plan = saving.read_plan(Path("first"))
    assert (plan.init, plan.exit_scale) == ("orthogonal", "explicit")
    again = run("apply", "first/plan.json", "model.py", "--out", "second")
    assert again.exit_code == 0, again.output
    weights = [(Path(name) / artifacts.WEIGHTS).read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    assert run("verify", "first").exit_code == 0
    wrong = run("plan", "model.py", "--init", "gian")
    assert wrong.exit_code == 2 and "did you mean 'gain'?" in wrong.stderr
    text = Path("first/plan.json").read_text()
    Path("edited.json").write_text(text.replace('"orthogonal"', '"orthognal"'))
    edited = run("apply", "edited.json", "model.py", "--out", "third")
    assert edited.exit_code == 6 and "no initialiser" in edited.stderr


def test_memory_budget(model: Path) -> None:
    result = run("plan", "model.py", "--budget", "memory=0.8x", "--memory-batch", 64)
    assert result.exit_code == 0, result.output
    assert "memory at most" in result.output and "batch 64" in result.output
    assert "memory=0.8x" in result.output and "reachable" in result.output
    assert run("plan", "model.py", "--budget", "memory=1kB").exit_code == 6
    assert run("plan", "model.py", "--budget", "memory=3bits").exit_code == 2


def test_landscape(model: Path) -> None:
    wanted = ("--region", "0", "--gain", "he", "--json", "map.json", "--html", "map.html")
    result = run("landscape", "model.py", *wanted, "--budget", "memory=0.9x")
    assert result.exit_code == 0, result.output + result.stderr
    assert "<- best" in result.output and "memory at most" in result.output
    found = json.loads(Path("map.json").read_text())
    assert found["cost"] == "memory" and found["optimum"] in found["curve"]
    assert max(one["cost"] for one in found["curve"]) <= found["limit"] < found["original"]["cost"]
    assert Path("map.html").read_text().count("<svg") == 1
    wrong = run("landscape", "model.py", "--region", "nowhere")
    assert wrong.exit_code == 2 and "no region 'nowhere'" in wrong.stderr


def test_latency_budget(model: Path) -> None:
    budget = ("--budget", "params", "--budget", "latency=2.0x", "--latency-batch", 4)
    result = run("plan", "model.py", *budget, "--gain", "he")
    assert result.exit_code == 0
    assert "latency at most" in result.output and "reachable  latency from" in result.output
    result = run("convert", "model.py", *budget, "--gain", "he")
    assert result.exit_code == 0
    assert "asked     at most 2.000x of the original's time (eager, batch 4" in result.output
    assert run("plan", "model.py", "--budget", "latency=3parsecs").exit_code == 2


def test_warm_start(model: Path) -> None:
    import numpy as np

    np.save("x.npy", np.random.default_rng(0).standard_normal((64, 16)))
    options = ("--weights", "transfer", "--calibration", "x.npy")
    first = run("convert", "model.py", *options, "--out", "first")
    assert first.exit_code == 0, first.output
    assert "warm start" in first.output and "before any training" in first.output
    again = run("apply", "first/plan.json", "model.py", "--calibration", "x.npy", "--out", "again")
    assert again.exit_code == 0, again.output
    weights = [(Path(name) / artifacts.WEIGHTS).read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    assert run("convert", "model.py", *options, "--dry-run").exit_code == 0
    np.save("y.npy", np.zeros((64, 5)))
    wrong = run("convert", "model.py", "--weights", "transfer", "--calibration", "y.npy")
    assert wrong.exit_code == 7 and "does not take the calibration inputs [48, 5]" in wrong.stderr
    unused = run("convert", "model.py", "--calibration", "x.npy")
    assert unused.exit_code == 2 and "draws its weights anew" in unused.stderr
