"""What plans promise against draws, on twenty kinds of networks; part of docs/ACCURACY.md.

    python -m benchmarks.promises [--draws 384] [--truth 1000] [--seed 0] [--kinds NAME ...]
                                  [--store FILE]

For every network of `benchmarks.kinds`, four times as wide so that there is something to split,
with the costs held and with all allowed: the plan of the default options at the first scope that
gains, the ratio of its measure over the original's as promised and as measured, with the
same seeds for both models and others than the analysis had. Results are kept in ``--store`` and
not made again.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

import cerewrite
from benchmarks.kinds import KINDS, make
from benchmarks.levels import DOCUMENT, TRUTH_SEED, placed
from benchmarks.lines import add_line, read_lines
from cerewrite import ir
from cerewrite.api.promise import measure_promise
from cerewrite.errors import PlanError

BEGIN, END = "<!-- promises: begin -->", "<!-- promises: end -->"
ALLOWED: tuple[str, ...] = ("", "all")
FAR = 0.3
WIDER = 4
"""Times the widths of `benchmarks.kinds`: so narrow networks are best left alone."""


@dataclass(frozen=True)
class Row:
    """One plan of one network.

    Attributes:
        name: kind of network.
        allow: costs that were not held.
        seed: of the network's sizes and the draws.
        splits: what was split, region by region.
        promised: measure of the rewritten model over the original's, 1 where nothing was split.
        measured: the same by draws.
        stderr: its standard error.
    """

    name: str
    allow: str
    seed: int
    splits: str
    promised: float
    measured: float
    stderr: float

    @property
    def error(self) -> float:
        """Relative error of the promise, without what the draws themselves leave open."""
        return abs(math.log(self.promised / self.measured))


def measure(name: str, allow: str, seed: int, draws: int, truth: int) -> Row:
    """The plan of one network by the default options, carried out and drawn."""
    model, x = make(name, seed, WIDER)
    analysis = cerewrite.analyze(model, x, draws=draws, seed=seed, scope="auto")
    try:
        plan = cerewrite.plan(analysis, allow=allow or ())
    except PlanError:  # no region at any scope
        return Row(name, allow, seed, "", 1.0, 1.0, 0.0)
    if not plan.splits:
        return Row(name, allow, seed, "", 1.0, 1.0, 0.0)
    rewritten = cerewrite.apply(plan, model)
    options = {"draws": truth, "seed": TRUTH_SEED + seed}
    promise = measure_promise(plan, model, rewritten, (x,), options)
    assert not promise.refused, promise.refused
    return Row(name, allow, seed, _told(plan), promise.promised, promise.measured, promise.stderr)


def _told(plan: ir.Plan) -> str:
    shown = {}
    for split in plan.splits:
        design = f"{split.multiplicity} x ({', '.join(map(str, split.widths))})"
        shown[design] = shown.get(design, 0) + 1
    return "; ".join(design if n == 1 else f"{n} of {design}" for design, n in shown.items())


def _short(splits: str) -> str:
    """Long chains of one width are shown by that width."""
    return re.sub(r"\((\d+)(?:, \1){4,}\)", lambda found: f"({found[1]}, ...)", splits)


def _summed(rows: Sequence[Row], allow: str) -> str:
    """One sentence on the plans with the same costs allowed."""
    errors = sorted(row.error for row in rows if row.splits)
    known = median([row.stderr / row.measured for row in rows if row.splits] or [0.0])
    if not errors:
        return ""
    return (
        f"Allowed {allow or 'nothing'}, {len(errors)} plans: error {median(errors):.0%} in the "
        f"median, {errors[-1]:.0%} at most, {sum(error > FAR for error in errors)} beyond "
        f"{FAR:.0%}; the draws themselves leave {known:.0%}.\n"
    )


def section(rows: Sequence[Row], settings: str) -> str:
    """The part of the document."""
    lines = [
        BEGIN,
        "## What plans promise",
        "",
        f"Written by `python -m benchmarks.promises`; {settings}. Measure of the rewritten model",
        "over the original's, Var[log K], with other seeds than the analysis had; standard errors",
        "in brackets. Networks that no plan splits are listed, and not counted.",
        "",
        *(_summed([row for row in rows if row.allow == allow], allow) for allow in ALLOWED),
        "",
        "| network | allowed | members | promised | measured | error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [row.name, row.allow or "nothing", _short(row.splits) or "left as it is"]
        if row.splits:
            measured = f"{row.measured:.3f} ({row.stderr:.3f})"
            cells += [f"{row.promised:.3f}", measured, f"{row.error:.0%}"]
        lines.append("| " + " | ".join([*cells, *[""] * (6 - len(cells))]) + " |")
    return "\n".join([*lines, "", END])


def main() -> None:
    """Measure what the store does not hold, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=384, help="draws of the analysis")
    parser.add_argument("--truth", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--store", type=Path, default=Path("build/promises.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row(**line) for line in read_lines(options.store)]
    known = {(row.name, row.allow, row.seed) for row in rows}
    for allow in ALLOWED:
        for name in options.kinds:
            if (name, allow, options.seed) in known:
                continue
            row = measure(name, allow, options.seed, options.draws, options.truth)
            rows.append(row)
            add_line(options.store, asdict(row))
            print(row, f"error {row.error:.2f}", flush=True)
    settings = (
        f"seed {options.seed}, analysis by {options.draws} draws, {options.truth} pairs of draws"
    )
    text = placed(DOCUMENT.read_text(encoding="utf-8"), section(rows, settings), BEGIN, END)
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
