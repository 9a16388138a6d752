"""Neighbours: races, threads, empty batches and forwards that end the program."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import cerewrite
from benchmarks.reliability.group import Counts, register
from cerewrite import output
from cerewrite.errors import OutputError, TargetTakenError
from cerewrite.exporter.empty import answer

Row = tuple[str, int, int]
"""What is promised, cases, and those in which it did not hold."""


def chain(width: int) -> nn.Module:
    """A chain that can be split."""
    torch.manual_seed(width)
    layers = [part for _ in range(3) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), *layers, nn.Linear(width, 4))


def empty_batches() -> Row:
    """Converted models at every scope and opset, asked for nothing."""
    failures = cases = 0
    for scope in ("block", "network"):
        for opset in (18, 20, 22):
            x = torch.randn(2, 16)
            model = cerewrite.convert(chain(32), x, gain="he", scope=scope).model
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "m.onnx"
                cerewrite.export_onnx(model, file, x, opset=opset)
                found = answer(file, {"input": np.zeros((0, 16), np.float32)})
            cases += 1
            failures += found["output"].shape != (0, 4)
    return "an empty batch is answered by an empty output", cases, failures


def targets() -> Row:
    """What appears while a folder is made stays, with and without --force."""
    failures = cases = 0
    for kind in ("file", "folder", "conversion"):
        for force in (False, True):
            if force and kind == "conversion":
                continue  # that is what --force replaces
            with tempfile.TemporaryDirectory() as folder:
                failures += not _kept(Path(folder) / "out", kind, force)
            cases += 1
    return "what appears in the place of a target is left as it is", cases, failures


def _kept(out: Path, kind: str, force: bool) -> bool:
    held = out if kind == "file" else out / ("plan.json" if kind == "conversion" else "mine.txt")
    try:
        with output.staged_folder(out, overwrite=force) as draft:
            (draft / output.PLAN).write_text("{}")
            held.parent.mkdir(exist_ok=True)
            held.write_text("mine")
    except TargetTakenError:
        return held.read_text() == "mine"
    return False


def one_folder() -> Row:
    """Two conversions into one folder: one writes it, one is refused."""
    failures = 0
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            found = together([lambda: _write(Path(folder) / "out")] * 2)
        failures += sum(isinstance(item, OutputError) for item in found) != 1
    return "of two runs into one folder one writes it, the other is refused", 3, failures


def _write(out: Path) -> Any:
    return cerewrite.convert(chain(32), torch.ones(2, 16), gain="he", out=out)


def threads() -> Row:
    """Conversions in threads give what each gives alone, as far as no clock decides."""
    widths = (24, 32, 40, 48)
    wanted = [_unclocked(chain(width)) for width in widths]
    models = [chain(width) for width in widths]
    found = together([partial(_unclocked, model) for model in models])
    failures = sum(not _same(*pair) for pair in zip(found, wanted, strict=True))
    return "conversions in threads give what each gives alone", len(widths), failures


def _unclocked(model: nn.Module) -> Any:
    x = torch.ones(2, 16)
    return cerewrite.convert(model, x, gain="he", draws=32, allow=("memory", "step"))


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, BaseException) or found.plan != wanted.plan:
        return False
    state = wanted.model.state_dict()
    return all(torch.equal(state[n], t) for n, t in found.model.state_dict().items())


def together(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Results or exceptions of jobs that run in threads of their own."""
    found: list[Any] = [None] * len(jobs)

    def run(index: int) -> None:
        try:
            found[index] = jobs[index]()
        except BaseException as error:
            found[index] = error

    running = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def endings() -> Row:
    """A forward that ends the program ends it as an error."""
    failures = 0
    calls = ("sys.exit(0)", "sys.exit()", "quit()")
    for call in calls:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "m.py"
            file.write_text(
                "import sys, torch\nclass Net(torch.nn.Linear):\n"
                "    def __init__(self): super().__init__(4, 4)\n"
                f"    def forward(self, x): {call}\n"
                "def example_inputs(): return torch.ones(2, 4)\n"
            )
            command = [sys.executable, "-m", "cerewrite", "analyze", str(file)]
            failures += subprocess.run(command, capture_output=True).returncode != 4
    return "a forward that ends the program ends in exit code 4", len(calls), failures


ROWS = (empty_batches, targets, one_folder, threads, endings)


@register(
    "neighbours",
    tries="two conversions into one folder, files and folders that appear in its place meanwhile, "
    "conversions in four threads, ONNX files asked for empty batches, forwards that call sys.exit",
    promise="one run writes a folder, what others put there stays, threads give what each gives "
    "alone, an empty batch has an empty output, and a forward ends no program of yours",
    limit="two runs share the machine's time: times, and what --seconds or a held time decide, "
    "differ from those of a run alone",
)
def neighbours(count: int) -> Counts:
    """All of them, whatever ``count`` is; a promise that was broken is reported as untyped."""
    cases, broken, slowest = 0, [], 0.0
    for row in ROWS:
        began = time.process_time()
        promise, tried, failures = row()
        slowest = max(slowest, (time.process_time() - began) / tried)
        cases += tried
        broken += [f"not held: {promise}"] * failures
    return Counts(cases, cases - len(broken), 0, tuple(dict.fromkeys(broken)), seconds=slowest)
