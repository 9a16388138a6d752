"""Numbers and shapes at the command line that no one can mean."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from hypothesis import strategies as st

from benchmarks.reliability.group import Counts, register
from benchmarks.reliability.sandbox import try_all
from cerewrite.cli import main
from cerewrite.errors import UsageError

MODEL = """
import torch
from torch import nn

def build_model():
    return nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))

def example_inputs():
    return torch.ones(2, 16)
"""

NUMBERS = ("-1", "0", "1e22", "1" + 22 * "0", "9" * 5000, "nan", "inf", "\u0663", "1_0", "", "x")
SHAPES = (
    *("99999999999,16", "=2,16", "2,", ",", "-2,16", "0,16", "\u0662,16", "2,16:complex64"),
    *("2,16:", "a b=2,16", "2,16,", "9" * 5000, "1" + ",1" * 100, "2147483647,2147483647"),
)
DESIGNS = (
    "0=4x" + "9" * 40,
    "0=0x1",
    "0=4x\u0664",
    "=4x4",
    "0=",
    "0=4x4,4,4,4,4,4",
    "0=1x2147483647",
)
BUDGETS = (
    "params=nan",
    "params=1e400",
    "params=-1",
    "params=\u0663M",
    "params=",
    "=",
    "params=1e309x",
)
OPTIONS = (
    *(
        (name, value)
        for name in ("--seed", "--min-width", "--draws", "--memory-batch")
        for value in NUMBERS
    ),
    *(("--precision", value) for value in NUMBERS),
    *(("--gain", value) for value in NUMBERS if value not in ("1e22", "1" + 22 * "0", "9" * 5000)),
    *(("--input", value) for value in SHAPES),
    *(("--fix", value) for value in DESIGNS),
    *(("--budget", value) for value in BUDGETS),
    ("--seed", str(2**64)),
)


@register(
    "arguments",
    tries="numbers, shapes, designs and budgets that no one can mean, each option of `plan` alone",
    promise="is a usage error that names the option, before the model is traced",
    limit="a number that could be meant is tried: --draws 2147483647 takes as long as it takes",
)
def arguments(count: int) -> Counts:
    """Options of the command line."""

    def prepare(path: Path, case: tuple[str, str]) -> None:
        path.write_text(f"{case[0]}\n{case[1]}", encoding="utf-8")
        path.with_name("model.py").write_text(MODEL)

    def attempt(path: Path) -> None:
        flag, value = path.read_text(encoding="utf-8").split("\n")
        result = CliRunner().invoke(main, ["plan", "model.py", "--gain", "he", flag, value])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code:
            raise UsageError("refused", advice="none")

    return try_all(st.sampled_from(OPTIONS), prepare, attempt, min(count, len(OPTIONS)))
