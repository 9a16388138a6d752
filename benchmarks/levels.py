"""The estimators on twenty kinds of networks, against long Monte-Carlo; part of docs/ACCURACY.md.

    python -m benchmarks.levels [--draws 0] [--truth 2000] [--seed 0] [--kinds NAME ...]

Writes the section between its two marks and leaves the rest of the document alone. Truth has its
own seed; seconds are of the processor, so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import cerewrite
from benchmarks.kinds import KINDS, make
from cerewrite.errors import AnalysisError

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "ACCURACY.md"
BEGIN, END = "<!-- levels: begin -->", "<!-- levels: end -->"
TRUTH_SEED = 1000
NEAR, FAR = 0.2, 1.5


@dataclass(frozen=True)
class Figure:
    """Var[log K] or nu: what was found and what is true, with their errors."""

    found: float
    stderr: float
    truth: float
    truth_stderr: float

    @property
    def ratio(self) -> float:
        """Found over true."""
        return self.found / self.truth

    @property
    def near(self) -> bool:
        """Within 20 % or two standard errors of both."""
        error = math.hypot(self.stderr, self.truth_stderr)
        return abs(self.found - self.truth) <= max(NEAR * self.truth, 2 * error)


@dataclass(frozen=True)
class Row:
    """One network."""

    name: str
    log_variance: Figure
    nu: Figure
    analytic: float | None
    jackknife: float | None
    draws: int
    seconds: float


def measure(name: str, seed: int, draws: int | None, truth: int) -> Row:
    """All estimators on one network of a kind."""
    model, x = make(name, seed)
    start = time.process_time()
    found = cerewrite.analyze(model, x, draws=draws, seed=seed)
    seconds = time.process_time() - start
    long = cerewrite.analyze(model, x, estimator="monte-carlo", draws=truth, seed=TRUTH_SEED + seed)
    pairs = [
        Figure(one.value, one.stderr or 0.0, true.value, true.stderr or 0.0)
        for one, true in ((found.log_variance, long.log_variance), (found.nu, long.nu))
    ]
    others = []
    for estimator in ("analytic", "jackknife"):
        try:
            other = cerewrite.analyze(model, x, estimator=estimator, seed=seed)
            others.append(other.log_variance.value / long.log_variance.value)
        except AnalysisError:
            others.append(None)
    return Row(name, *pairs, *others, found.nu.samples, seconds)


def section(rows: Sequence[Row], settings: str) -> str:
    """The part of the document."""
    near = {
        title: sum(getattr(row, field).near for row in rows)
        for title, field in (("Var[log K]", "log_variance"), ("nu", "nu"))
    }
    worst = max(
        max(figure.ratio, 1 / figure.ratio) for row in rows for figure in (row.log_variance, row.nu)
    )
    lines = [
        BEGIN,
        "## Kinds of networks, by the default estimator",
        "",
        f"Written by `python -m benchmarks.levels`; {settings}. Small networks of",
        "`benchmarks/kinds.py`, weights as built. Figures are multiples of Monte-Carlo's, with the",
        "standard error of both in brackets; seconds are the processor's, one thread, tracing",
        "included.",
        "",
        f"Within {NEAR:.0%} or two standard errors: Var[log K] {near['Var[log K]']} of "
        f"{len(rows)}, nu {near['nu']} of {len(rows)}; farthest {worst:.2f} times"
        + (f", beyond {FAR}." if worst > FAR else "."),
        "",
        "| network | Var[log K], truth | auto | nu, truth | auto | analytic | jackknife | draws "
        "| s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [row.name]
        for figure in (row.log_variance, row.nu):
            error = figure.ratio * math.hypot(
                figure.stderr / figure.found, figure.truth_stderr / figure.truth
            )
            mark = "" if figure.near else " **far**"
            cells += [f"{figure.truth:.3g}", f"{figure.ratio:.2f} ({error:.2f}){mark}"]
        cells += ["refused" if x is None else f"{x:.2f}" for x in (row.analytic, row.jackknife)]
        cells += [str(row.draws), f"{row.seconds:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", END])


def placed(document: str, part: str, begin: str = BEGIN, end: str = END) -> str:
    """The document with its part replaced, or added before the first other section or part."""
    if begin in document:
        head, _, rest = document.partition(begin)
        return head + part + rest.partition(end)[2]
    first = re.search(r"^(## |<!-- \w+: begin -->)", document, re.MULTILINE)
    place = first.start() if first else len(document)
    return f"{document[:place]}{part}\n\n{document[place:]}"


def parts(document: str) -> list[tuple[str, str, str]]:
    """Every part with its two marks: begin, end, text."""
    names = re.findall(r"<!-- (\w+): begin -->", document)
    marks = [(f"<!-- {name}: begin -->", f"<!-- {name}: end -->") for name in names]
    return [(begin, end, part_of(document, begin, end)) for begin, end in marks]


def part_of(document: str, begin: str = BEGIN, end: str = END) -> str:
    """The part between two marks, "" if there is none."""
    if begin not in document:
        return ""
    return begin + document.partition(begin)[2].partition(end)[0] + end


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=0, help="draws of auto; 0 for its time limit")
    parser.add_argument("--truth", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.kinds:
        rows.append(measure(name, options.seed, options.draws or None, options.truth))
        print(rows[-1], flush=True)
    limit = f"{options.draws} draws" if options.draws else "its time limit of 20 s"
    settings = f"seed {options.seed}, auto with {limit}, truth from {options.truth} draws"
    text = placed(DOCUMENT.read_text(encoding="utf-8"), section(rows, settings))
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
