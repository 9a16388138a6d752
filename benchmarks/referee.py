"""What is each diagnostic worth? Rank correlations with trainings, written to docs/REFEREE.md.

    python -m benchmarks.referee measure [--tasks 'mlp*'] [--seeds 3]
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

from benchmarks.referee_expected import PREDICTED, RANGES
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
SEEDS = 3
"""Draws of the weights behind each stored figure."""
DRAWS = 1000
FEWEST = 4
"""Baselines with fewer designs are left out."""


def main() -> None:
    """Measure the designs, or write the document and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.referee")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("measure", help="diagnose what the file does not hold yet")
    run.add_argument("--tasks", nargs="+", default=["*"])
    run.add_argument("--seeds", type=int, default=SEEDS)
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
        means = {
            name: float(np.mean([row[name] for row in each if name in row])) for name in each[0]
        }
        line = {
            "task": key[0],
            "design": key[1],
            "figures": {k: _short(v) for k, v in means.items()},
        }
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(*key, flush=True)


def _short(value: float) -> float | None:
    """Five digits; None for what is no number."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _measured() -> list[dict[str, Any]]:
    if not FIGURES.exists():
        return []
    return [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()]


def report() -> None:
    """Write the document and the packaged table from the stored figures."""
    from cerewrite.diagnostics.worth import TABLE
    from cerewrite.ir.diagnosed import Worth

    rows = {(row["task"], row["design"]): row["figures"] for row in _measured()}
    entries = [(e, rows[_key(e)]) for e in gather(Store(TRAINED)) if _key(e) in rows]
    counts: dict[str, int] = {}
    for entry, _ in entries:
        counts[entry.task.name] = counts.get(entry.task.name, 0) + 1
    entries = [pair for pair in entries if counts[pair[0].task.name] >= 2 * FEWEST]
    names = list(dict.fromkeys(name for _, figures in entries for name in figures))
    table: dict[str, list[Worth]] = {}
    for name in names:
        diagnostic, figure = name.split(": ", 1)
        for outcome in OUTCOMES:
            found = _worth(entries, name, outcome)
            if found is not None and math.isfinite(found[0].value):
                alone, given, designs = found
                bounds = (alone.value, alone.low, alone.high, given.value, given.low, given.high)
                rounded = (round(value, 3) if math.isfinite(value) else value for value in bounds)
                row = Worth(figure, outcome, *rounded, designs)
                table.setdefault(diagnostic, []).append(row)
    plain = {name: [_plain(row) for row in rows] for name, rows in sorted(table.items())}
    TABLE.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(_document(table, entries), encoding="utf-8")


def _plain(row: Any) -> dict[str, Any]:
    return asdict(row)


def _key(entry: Entry) -> tuple[str, str]:
    shapes = [f"{r}:{m}x{','.join(map(str, w))}" for r, m, w in entry.shapes]  # type: ignore
    return entry.task.name, " ".join(shapes) or "baseline"


Pairs = Sequence[tuple[Entry, dict[str, float]]]


def _worth(entries: Pairs, name: str, outcome: str) -> tuple[Interval, Interval, int] | None:
    """Correlations inside baselines, alone and given total width and parameters.

    Means over baselines and optimisers of Spearman's; bootstrap over baselines and runs.
    """
    from cerewrite.diagnostics import DIAGNOSTICS

    diagnostic, figure = name.split(": ", 1)
    sign = -1.0 if figure in DIAGNOSTICS[diagnostic].higher_is_better else 1.0
    chosen = [(e, f[name]) for e, f in entries if f.get(name) is not None]
    counts: dict[tuple[str, str], int] = {}
    for entry, _ in chosen:
        key = (entry.task.name, entry.optimiser)
        counts[key] = counts.get(key, 0) + 1
    chosen = [(e, v) for e, v in chosen if counts[e.task.name, e.optimiser] >= FEWEST]
    if not chosen:
        return None
    x = np.array([sign * value for _, value in chosen])
    width = np.array([-entry.figures["total width"] for entry, _ in chosen])
    params = np.array([entry.figures["params"] for entry, _ in chosen])
    sides = np.array([entry.optimiser == "adam" for entry, _ in chosen], dtype=float)
    runs = min(len(entry.final["seeds"]) for entry, _ in chosen)
    outcomes = np.array([entry.outcome(outcome)[:runs] for entry, _ in chosen])
    groups = np.array([entry.task.name for entry, _ in chosen])

    def statistic(index: Any, label: Array, y: Array) -> list[float]:
        apart = 2 * label + sides[index]
        each = [apart == value for value in np.unique(apart)]
        alone = [spearman(x[index][g], y[g]) for g in each]
        known = [c for c in alone if c == c]
        controls = np.column_stack([within(c[index], apart) for c in (width, params)])
        left, right = (_rest(within(v, apart), controls) for v in (x[index], y))
        return [sum(known) / len(known) if known else math.nan, correlation(left, right)]

    alone, given = bootstrap(statistic, groups, outcomes, draws=DRAWS, designs=False)
    return alone, given, len({(e.task.name, _key(e)[1]) for e, _ in chosen})


def _rest(values: Array, controls: Array) -> Array:
    """What a linear regression on the controls leaves."""
    fitted: Array = controls @ np.linalg.lstsq(controls, values, rcond=None)[0]
    return values - fitted


def _document(table: dict[str, list[Any]], entries: Pairs) -> str:
    from cerewrite.diagnostics import DIAGNOSTICS

    tasks = list(dict.fromkeys(entry.task.name for entry, _ in entries))
    designs = len({_key(entry) for entry, _ in entries})
    lines = [
        "# What the diagnostics are worth",
        "",
        "Written by `python -m benchmarks.referee report` from `benchmarks/referee.jsonl` and",
        "`benchmarks/training/results.jsonl`; do not edit. The same figures stand beside every",
        "figure that `cerewrite diagnose` prints.",
        "",
        *textwrap.wrap(
            f"{designs} designs of {len(tasks)} baselines ({', '.join(tasks)}), each trained with "
            f"SGD and Adam (docs/TRAINING.md). Every figure is the mean over {SEEDS} draws of the "
            f"weights, on the first {BATCH} training examples. Spearman's rank correlation inside "
            "each baseline and optimiser, averaged over them; `given` is the rank correlation "
            "inside baselines of what total width and parameters leave of figure and outcome. "
            "Brackets hold 95 % intervals by bootstrap over baselines and runs; they do not cover "
            "that many are looked at. Above 0: designs of which the figure's source expects more "
            "did better (less is taken to be better where the source says nothing).",
            98,
        ),
        "",
        "## Expected",
        "",
        PREDICTED,
        *_held_against(table),
        "## Found",
        "",
    ]
    head = [f"{TITLES[o]}, {kind}" for o in OUTCOMES for kind in ("alone", "given")]
    lines += [
        "| figure | better | " + " | ".join(head) + " | designs |",
        "| --- " * (len(head) + 3) + "|",
    ]
    for diagnostic, rows in _by_size(table):
        for figure in dict.fromkeys(row.figure for row in rows):
            mine = {row.outcome: row for row in rows if row.figure == figure}
            cells = [
                _cell(
                    getattr(mine[o], kind),
                    getattr(mine[o], f"{kind}_low"),
                    getattr(mine[o], f"{kind}_high"),
                )
                for o in OUTCOMES
                for kind in ("alone", "given")
            ]
            more = figure in DIAGNOSTICS[diagnostic].higher_is_better
            count = max(row.designs for row in mine.values())
            lines.append(
                f"| {diagnostic}: {figure} | {'more' if more else 'less'} | "
                + " | ".join(cells)
                + f" | {count} |"
            )
    silent = sorted(set(DIAGNOSTICS) - set(table))
    lines += [
        "",
        f"Without a value on at least {FEWEST} designs of a baseline: {', '.join(silent) or '-'}.",
    ]
    return "\n".join([*lines, ""])


def _held_against(table: dict[str, list[Any]]) -> list[str]:
    """Which of the expectations came true."""
    lines = ["| expected | range | steps | final loss | came true |", "| --- " * 5 + "|"]
    for name, (low, high) in RANGES.items():
        diagnostic, figure = name.split(": ", 1)
        found = [
            next(r.alone for r in table[diagnostic] if (r.figure, r.outcome) == (figure, outcome))
            for outcome in ("steps", "loss")
        ]
        true = [low <= round(value, 2) <= high for value in found]
        verdict = "yes" if all(true) else "in one" if any(true) else "no"
        cells = " | ".join(f"{value:+.2f}" for value in found)
        lines.append(f"| {name} | {low:+.2f} to {high:+.2f} | {cells} | {verdict} |")
    given = [
        f"{diagnostic}: {figure}"
        for diagnostic, rows in table.items()
        for figure in dict.fromkeys(row.figure for row in rows)
        if all(r.given_low * r.given_high > 0 for r in rows if r.figure == figure)
    ]
    kept = ", ".join(given) or "none, as expected"
    text = (
        "Given total width and parameters, figures whose interval excludes 0 in all three "
        f"outcomes: {kept}."
    )
    return [*lines, "", *textwrap.wrap(text, 98), ""]


def _by_size(table: dict[str, list[Any]]) -> list[tuple[str, list[Any]]]:
    """Diagnostics by their headline's correlation with the final loss, largest first."""

    def size(rows: list[Any]) -> float:
        value = next(row.alone for row in rows if row.outcome == "loss")
        return -value if value == value else 2.0

    return sorted(table.items(), key=lambda item: size(item[1]))


def _cell(value: float, low: float, high: float) -> str:
    return "-" if value != value else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    main()
