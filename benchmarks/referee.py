"""What is each diagnostic worth? Rank correlations with trainings, written to docs/REFEREE.md.

    python -m benchmarks.referee measure [--tasks 'mlp*'] [--seeds 4]
    python -m benchmarks.referee report

`measure` builds every design that benchmarks/training has trained, draws it with seeds that no
reported training has, and appends one JSON line per design to benchmarks/referee.jsonl; it skips
what is there. `report` needs only the files; it writes the document, and the packaged table that
``cerewrite diagnose`` prints from.
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.evidence import OUTCOMES, TITLES, Entry, gather
from benchmarks.training.statistics import (
    Array,
    Interval,
    bootstrap,
    correlation,
    spearman,
    within,
)
from benchmarks.training.store import Store

ROOT = Path(__file__).resolve().parents[1]
FIGURES = Path(__file__).with_name("referee.jsonl")
DOCUMENT = ROOT / "docs" / "REFEREE.md"
TRAINED = Path(__file__).with_name("training") / "results.jsonl"
BATCH = 16
DRAWS = 1000
FEWEST = 4
"""Baselines with fewer designs are left out."""

PREDICTED = """\
Written down before anything was measured, from the first look of 65 designs at equal parameters
(1 / width, leading order, NASWOT about +0.65; log-variance +0.18; nu 0.0; ZiCo -0.23; gradient
confusion -0.26; SynFlow -0.63) and from the formulas:

* With steps and final loss: leading order and NASWOT +0.5 to +0.75, sign-variance +0.3 to +0.6,
  log-variance +0.1 to +0.4, nu within 0.2 of 0.
* ZiCo 0 to -0.4; SynFlow -0.4 to -0.7 (more members, smaller products of norms); gradient
  confusion 0 to -0.4; gradient norm within 0.3 of 0.
* Capacity and capacity per parameter: -0.3 to -0.7 (members are narrow: fewer bits at equal
  parameters, and they train better).
* Local maps' condition number: -0.3 to -0.6 (grouped layers are square blocks, worse conditioned).
* Drift of the kernel: above 0, +0.2 to +0.6 (less drift, wider in total, better).
* Share of H along the gradient: within 0.3 of 0. Virtual depth: undecided, one baseline.
* Given total width and parameters nothing keeps an interval that excludes 0 in all three outcomes.
* Test error orders as final loss does, at about two thirds of the size.
"""


def main() -> None:
    """Measure the designs, or write the document and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.referee")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("measure", help="diagnose what the file does not hold yet")
    run.add_argument("--tasks", nargs="+", default=["*"])
    run.add_argument("--seeds", type=int, default=4)
    verbs.add_parser("report", help="write docs/REFEREE.md and the packaged table")
    options = parser.parse_args()
    if options.verb == "measure":
        measure(options.tasks, options.seeds)
    else:
        report()


def measure(globs: Sequence[str], seeds: int) -> None:
    """Diagnose every stored design of these tasks."""
    from benchmarks.training.designs import Design, analyse, build
    from benchmarks.training.tasks import TASKS
    from cerewrite import diagnostics
    from cerewrite.frontend import tracing

    known = {(row["task"], row["design"]) for row in _measured()}
    for record in filter(lambda r: r["labels"], Store(TRAINED).of("design")):
        key = (record["task"], record["design"])
        if key in known or not any(fnmatchcase(key[0], glob) for glob in globs):
            continue
        task = TASKS[key[0]]
        data = task.data()
        x, y = data.x[:BATCH], data.y[:BATCH]
        shapes = tuple((r, m, tuple(w)) for r, m, w in record["shapes"])
        design = Design(tuple(record["labels"]), shapes)
        each: list[dict[str, float]] = []
        for model in build(task, analyse(task), design, range(seeds)):
            traced = tracing.trace(model, (x,))
            found = diagnostics.diagnose(traced, model, (x,), targets=y, draws=0)
            each.append(
                {
                    f"{finding.diagnostic}: {figure.name}": figure.value
                    for finding in found.findings
                    for figure in finding.figures
                }
            )
        means = {name: float(np.mean([row[name] for row in each if name in row]))
                 for name in each[0]}
        line = {"task": key[0], "design": key[1], "figures": means}
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(*key, flush=True)


def _measured() -> list[dict[str, Any]]:
    if not FIGURES.exists():
        return []
    return [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
