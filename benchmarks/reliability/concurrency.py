"""Races, threads and empty batches: rows for docs/RELIABILITY.md.

Every function returns ``(group, promise, cases, failures)``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import cerewrite
from cerewrite import output
from cerewrite.errors import OutputError, TargetTakenError
from cerewrite.exporter.empty import answer

Row = tuple[str, str, int, int]


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
    return "empty batches", "answered by an empty output", cases, failures


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
    return "targets that appear", "left as they are, exit code 12", cases, failures


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
    return "two runs, one folder", "one is written, the other refused", 3, failures


def _write(out: Path) -> Any:
    return cerewrite.convert(chain(32), torch.ones(2, 16), gain="he", out=out)


def threads() -> Row:
    """Conversions in threads give what each gives alone."""
    widths = (24, 32, 40, 48)
    wanted = [cerewrite.convert(chain(w), torch.ones(2, 16), gain="he") for w in widths]
    models = [chain(w) for w in widths]

    def one(model: nn.Module) -> Callable[[], Any]:
        return lambda: cerewrite.convert(model, torch.ones(2, 16), gain="he")

    found = together([one(model) for model in models])
    failures = sum(not _same(*pair) for pair in zip(found, wanted, strict=True))
    return "conversions in threads", "what each gives alone", len(widths), failures


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
    return "forwards that end the program", "exit code 4 and their line", len(calls), failures


ROWS = (empty_batches, targets, one_folder, threads, endings)
