"""A stranger's ten tasks: commands, words and time, at an earlier revision and now.

    git archive 8a9b31d | tar -x -C BEFORE
    python -m benchmarks.stranger --before BEFORE

Every task starts in a folder of its own that holds one model file, and is what the documentation of
its revision advises. Writes docs/STRANGER.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "STRANGER.md"
REVISION = "8a9b31d"

LOAD = "import cerewrite, torch; from model import build_model, example_inputs; m = build_model(); "
META = "import cerewrite, torch; from model import build_model; m = build_model().to('meta'); "
PLAIN = "print(cerewrite.analyze(m, torch.empty(2, 64, device='meta')).nu)"
UNDO = LOAD + "r = cerewrite.convert(m, example_inputs()); print(type(cerewrite.revert(r.model)))"
SHOWN = LOAD + "r = cerewrite.convert(m, example_inputs()); print(r.plan.planned.nu)"
MADE = "convert model.py --out out"


@dataclass(frozen=True, slots=True)
class Task:
    """What a stranger wants, and how each revision does it.

    Attributes:
        name: what is wanted.
        before: commands at the earlier revision; ``python`` runs one, others are cerewrite's.
        after: commands now.
        note: what the numbers do not say.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    note: str = ""


def python(code: str) -> str:
    """A script of one line as a command."""
    return f"python {shlex.quote(code)}"


TASKS = (
    Task(
        "convert a file",
        ("convert model.py --budget params --out out",),
        (MADE,),
        "now measured on draws of both models, and costs are held",
    ),
    Task(
        "hold the time",
        ("convert model.py --budget latency=1.0x --budget params --out out", "bench out"),
        (MADE,),
        "before, only the time of a call could be limited, not a training step's",
    ),
    Task(
        "find out why a layer was skipped",
        ("analyze model.py", "explain model.py 8"),
        ("explain model.py 8",),
        "the first screen of a conversion now names the command",
    ),
    Task("fix one region", *[("convert model.py --fix 0=8x96 --out out",)] * 2),
    Task(
        "carry weights over",
        *[("convert model.py --weights transfer --calibration x.npy --out out",)] * 2,
    ),
    Task(
        "export for Triton",
        (MADE, "export out --triton repository --name mlp"),
        ("convert model.py --for servers --triton repository --name mlp",),
        "the preset also holds the time of a call",
    ),
    Task(
        "compare two plans",
        ("plan model.py --out a.json", "plan model.py --budget flops --out b.json"),
        ("plan model.py",),
        "the menu shows five plans side by side (-v)",
    ),
    Task("analyse on meta", (python(META + PLAIN),), (python(META + PLAIN),)),
    Task("use in a notebook", *[(python(SHOWN),)] * 2),
    Task("undo", *[(python(UNDO),)] * 2),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a task took.

    Attributes:
        commands: that were typed.
        words: in them, as a shell splits them.
        wall: seconds on the clock.
        processor: seconds of computing.
        failed: the first line of the first error; "" if there was none.
    """

    commands: int
    words: int
    wall: float
    processor: float
    failed: str = ""


def cost(commands: tuple[str, ...], checkout: Path) -> Cost:
    """Run a task's commands in a fresh folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "examples" / "mlp_digits" / "model.py", folder)
        np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((256, 64)))
        cache = {"CEREWRITE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, "PYTHONPATH": str(checkout), **cache}
        start, used = time.perf_counter(), _processor()
        failed, words = "", 0
        for command in commands:
            parts = shlex.split(command)
            words += len(parts) + (parts[0] != "python")
            own = ["-c", *parts[1:]] if parts[0] == "python" else ["-m", "cerewrite", *parts]
            done = subprocess.run(
                [sys.executable, *own], cwd=folder, env=environment, capture_output=True, text=True
            )
            if done.returncode and not failed:
                failed = (done.stderr.strip().splitlines() or ["no message"])[0]
        return Cost(len(commands), words, time.perf_counter() - start, _processor() - used, failed)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def page(costs: dict[str, tuple[Cost, Cost]]) -> str:
    """The document."""
    lines = [
        "# A stranger's ten tasks",
        "",
        f"Written by `python -m benchmarks.stranger`; do not edit. Revision `{REVISION}` against",
        "this one, on `examples/mlp_digits/model.py` (four hidden layers of 512), one thread, an",
        "empty cache. Words are counted as a shell splits them; seconds are of computing, and on",
        "the clock of a machine that others use too.",
        "",
        "| task | commands | words | computing | clock |",
        "| --- | --- | --- | --- | --- |",
    ]
    for task in TASKS:
        old, new = costs[task.name]
        lines.append(
            f"| {task.name} | {old.commands} -> {new.commands} | {old.words} -> {new.words} | "
            f"{old.processor:.1f} s -> {new.processor:.1f} s | {old.wall:.0f} s -> "
            f"{new.wall:.0f} s |"
        )
    lines += ["", "What was typed:", ""]
    for task in TASKS:
        lines.append(f"* **{task.name}**{': ' + task.note if task.note else ''}")
        for label, commands, found in zip(
            ("before", "now"), (task.before, task.after), costs[task.name], strict=True
        ):
            shown = "; ".join(f"`{_shown(command)}`" for command in commands)
            end = f" (fails: {found.failed})" if found.failed else ""
            lines.append(f"    * {label}: {shown}{end}")
    return "\n".join(lines) + "\n"


def _shown(command: str) -> str:
    return command if command.startswith("python") else f"cerewrite {command}"


def main() -> None:
    """Run every task at both revisions and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help=f"a checkout of {REVISION}")
    asked = parser.parse_args()
    costs = {}
    for task in TASKS:
        costs[task.name] = cost(task.before, asked.before), cost(task.after, ROOT)
        print(task.name, *costs[task.name], flush=True)
    PAGE.write_text(page(costs), encoding="utf-8")


if __name__ == "__main__":
    main()
