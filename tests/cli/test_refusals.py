"""How every bad input is refused, and what an interrupted run leaves: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cerewrite import ir, output
from tests.cli.running import listing, run
from tests.conftest import ROOT, WriteModel

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
    result = run("convert", "--estimator", "analytic", *arguments, *out)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert listing(model.parent) == before
    assert listing(model.parent / "full") == {"mine.txt"}


def test_plan_for_another_model(model: Path, write_model: WriteModel) -> None:
    write_model(model.read_text().replace("64", "32"), "other.py")
    assert (
        run("plan", "model.py", "--out", "plan.json", "-q", "--estimator", "analytic").exit_code
        == 0
    )
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
        (["verify", "out"], output.WEIGHTS, 10, "not a whole safetensors file"),
        (["verify", "out"], output.PLAN, 6, "not JSON"),
        (["export", "out", "--out", "a.onnx"], output.WEIGHTS, 10, "not a whole safetensors"),
        (["export", "nowhere", "--out", "a.onnx"], None, 3, "nowhere: no such file"),
    ],
)
def test_damaged_folders(
    model: Path, command: list[str], damage: str | None, code: int, message: str
) -> None:
    if damage:
        assert (
            run("convert", "model.py", "--out", "out", "-q", "--estimator", "analytic").exit_code
            == 0
        )
        path = Path("out", damage)
        path.write_bytes(path.read_bytes()[:-20])
    result = run(*command)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_failed_check_in_a_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cerewrite import verifier

    assert (
        run("convert", "model.py", "--out", "out", "-q", "--estimator", "analytic").exit_code == 0
    )
    broken = ir.Verification((ir.Check("membership", False, "off by one at '2'"),))
    monkeypatch.setattr(verifier, "verify", lambda *arguments: broken)
    result = run("verify", "out")
    assert result.exit_code == 8
    assert "FAILED  membership: off by one at '2'" in result.stdout
    assert "out: 1 of 1 checks fail" in result.stderr


@pytest.mark.thorough
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


ENDS = """
    import sys
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))

        def forward(self, x):
            {line}
            return self.fc(x)

    def example_inputs():
        return torch.ones(2, 16)
"""


@pytest.mark.parametrize("code", ["0", "", "'enough'"])
def test_a_forward_that_ends_the_program_is_an_error(
    model: Path, write_model: WriteModel, tmp_path: Path, code: str
) -> None:
    write_model(ENDS.format(line=f"sys.exit({code})"), "ends.py")
    result = run("convert", "ends.py", "--out", tmp_path / "out")
    assert result.exit_code == 4
    assert "the model's own code ends the program: SystemExit" in result.stderr
    assert "(ends.py, line 12, in forward)" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_raising_forward_is_reported_with_its_own_line(
    model: Path, write_model: WriteModel
) -> None:
    write_model(ENDS.format(line="torch.ones(3) @ torch.ones(4)"), "raises_late.py")
    result = run("analyze", "raises_late.py")
    assert result.exit_code == 4
    assert "(raises_late.py, line 12, in forward)" in result.stderr


def test_threads_beyond_reason_are_refused(model: Path) -> None:
    result = run("analyze", "model.py", "--threads", "100000")
    assert result.exit_code == 2 and "100000 is above" in result.stderr


def test_a_budget_of_no_time_is_refused(model: Path) -> None:
    result = run("convert", "model.py", "--budget", "latency=0ms")
    assert result.exit_code == 2 and "no call takes no time" in result.stderr


@pytest.mark.thorough
def test_a_latency_budget_that_is_not_held_exits_as_one(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cerewrite.api import speed

    slow = ir.Timing("eager", 1, 1, 1.0, 0.01, 10.0, 0.01, 15)
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (slow,))
    result = run("convert", "model.py", "--budget", "latency=1.0x", "--out", tmp_path / "out")
    assert result.exit_code == 6, "the original is within the limit, and no copy of it is written"
    assert "no design of Sequential within latency=1.0x" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_sigterm_while_something_is_imported_ends_the_run() -> None:
    """Libraries swallow, or turn into other errors, what a handler raises while they load."""
    script = """
import os, signal, sys
from cerewrite.cli.group import Group
import click
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "swallowing":
            import importlib.util
            return importlib.util.spec_from_loader(name, self)
    def create_module(self, spec): return None
    def exec_module(self, module):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(100))
        except BaseException as error:
            raise ImportError("onnx is broken") from None
sys.meta_path.insert(0, Finder())
@click.group(cls=Group)
def main(): pass
@main.command()
def go():
    import swallowing, time
    time.sleep(30)
main(["go"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 143, done.stderr


@pytest.mark.thorough
def test_a_sigterm_while_the_model_is_loaded_is_no_fault_of_the_model(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nsum(range(100))\n")
    command = [sys.executable, "-m", "cerewrite", "analyze", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")
