"""Do the papers' claims come true on eight small models? Writes docs/CLAIMS.md.

    python -m benchmarks.claims [--seeds 8] [--models 'res*'] [--no-run]

The claims and what was expected of them stand in benchmarks/claims_expected.py and were committed
before the first run; the models in benchmarks/claims_models.py. Figures go to
benchmarks/claims.jsonl, a line per model, variant and seed; a run that was broken off goes on from
there. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.claims_expected import CLAIMS, PREDICTED, Claim, N, Term, U, Y
from benchmarks.claims_models import KINDS, Kind, Shape, build, size, variants
from benchmarks.lines import add_line, read_lines
from benchmarks.training.statistics import Interval, mean
from cerewrite import diagnostics
from cerewrite.estimators.draws import make_subject, relative_variance
from cerewrite.frontend import tracing
from cerewrite.ir.diagnosed import Diagnosis

ROOT = Path(__file__).resolve().parents[1]
STORE = Path(__file__).with_name("claims.jsonl")
DOCUMENT = ROOT / "docs" / "CLAIMS.md"

SEEDS, STEPS, DRAWS = 8, 120, 48
"""Repetitions; steps of a training; draws of K behind every nu."""
BATCH, TRAIN, RANDOM, RATE, STEP_BATCH = 16, 1000, 256, 2e-3, 64
"""Examples diagnosed, trained on, labelled at random; Adam's rate and its batch."""

STRUCTURE = ("capacity", "residual-kernel")
"""Diagnostics that draws do not enter: looked at once."""

Line = dict[str, Any]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--models", nargs="+", default=["*"])
    parser.add_argument("--no-run", action="store_true", help="write what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.no_run:
        chosen = {
            name: kind
            for name, kind in KINDS.items()
            if any(fnmatchcase(name, glob) for glob in options.models)
        }
        measure(STORE, chosen, options.seeds)
    DOCUMENT.write_text(document(read_lines(STORE)), encoding="utf-8")


def measure(
    store: Path, kinds: Mapping[str, Kind], seeds: int, *, steps: int = STEPS, draws: int = DRAWS
) -> None:
    """Run what is missing, a line per model, variant and seed."""
    known = {(row["model"], row["variant"], row["seed"]) for row in read_lines(store)}
    for seed in range(seeds):
        for name, kind in kinds.items():
            for variant, shape in variants(kind).items():
                if (name, variant, seed) in known:
                    continue
                figures, gaps = look(kind, variant, shape, seed, steps, draws)
                line = {"model": name, "variant": variant, "seed": seed}
                line |= {"params": size(kind, shape), "figures": figures, "gaps": gaps}
                add_line(store, line)
                print(name, variant, seed, flush=True)


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Standardised digits in an order of the seed's, ``[1797, 1, 8, 8]``, and their classes."""
    held = load_digits()
    order = torch.randperm(len(held.data), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(held.images, dtype=torch.float32)[order, None]
    return (x - x.mean()) / x.std(), torch.tensor(held.target)[order]


def look(
    kind: Kind, variant: str, shape: Shape, seed: int, steps: int, draws: int
) -> tuple[Line, Line]:
    """All figures of one model that a claim is about, and what has none."""
    x, y = digits(seed)
    model, first = build(kind, shape, seed), x[:BATCH]
    wanted = {t.figure for claim in CLAIMS for t in claim.terms if t.variant == variant}
    traced = tracing.trace(model, (first,))

    def diagnosed(prefix: str) -> Iterator[tuple[str, float]]:
        only = {n.removeprefix(prefix).partition(":")[0] for n in wanted if n.startswith(prefix)}
        only &= set(diagnostics.DIAGNOSTICS)
        only -= set() if seed == 0 else set(STRUCTURE)
        if only:
            found = diagnostics.diagnose(
                traced, model, (first,), targets=y[:BATCH], draws=0, seed=seed, only=only
            )
            gaps.update({gap.where: gap.reason for gap in found.gaps})
            yield from read(found)

    gaps: Line = {}
    figures: Line = dict(diagnosed(""))
    if "nu" in wanted:
        subject = make_subject(traced, model, (first[: BATCH // 2],), seed=seed)
        figures["nu"] = relative_variance([subject.kernel(index) for index in range(draws)]).value
    if any(name.startswith("trained ") for name in wanted):
        fit(model, x[:TRAIN], y[:TRAIN], steps, seed)
        figures |= {f"trained {name}": v for name, v in diagnosed("trained ")}
    if "memorised" in wanted:
        fresh = build(kind, shape, seed)
        labels = torch.randint(10, (RANDOM,), generator=torch.Generator().manual_seed(seed))
        fit(fresh, x[:RANDOM], labels, steps, seed)
        with torch.no_grad():
            right = fresh(x[:RANDOM]).argmax(1) == labels
        figures["memorised"] = float(right.float().mean())
    return {k: float(f"{v:.6g}") for k, v in figures.items() if math.isfinite(v)}, gaps


def read(found: Diagnosis) -> Iterator[tuple[str, float]]:
    """Figures of a diagnosis by name, and the two that claims are about and it does not print."""
    for finding in found.findings:
        for figure in finding.figures:
            yield f"{finding.diagnostic}: {figure.name}", figure.value
    depth, blocks = (found.value("virtual-depth", name) for name in ("mean", "blocks"))
    yield "virtual-depth: mean over blocks", depth / blocks
    g, h = (found.value("curvature", f"{name} along g") for name in "GH")
    total = abs(g) + abs(h)
    yield "curvature: balance", (g + h) / total if total else math.nan


def fit(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
    """Train with Adam, in epochs of shuffled batches."""
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    order = torch.Generator().manual_seed(seed)
    batches: list[Tensor] = []
    for _ in range(steps):
        batches = batches or list(torch.randperm(len(x), generator=order).split(STEP_BATCH))
        batch = batches.pop()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()


class Table:
    """The stored figures by model, variant and seed."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.rows = {(row["model"], row["variant"], row["seed"]): row for row in lines}
        self.models = [name for name in KINDS if any(row[0] == name for row in self.rows)]
        self.seeds = sorted({seed for _, _, seed in self.rows})

    def figure(self, model: str, term: Term, seed: int, claim: Claim) -> float | None:
        """One term of a claim with its sign; None without."""
        row = self.rows.get((term.kind or model, term.variant, seed))
        value = row["figures"].get(term.figure) if row else None
        if value is None or (claim.log and value <= 0):
            return None
        value = math.log10(value) if claim.log else abs(value) if claim.size else value
        return term.sign * float(value)

    def values(self, claim: Claim, model: str) -> list[float]:
        """The claim's figure, seed by seed, of the seeds that have it."""
        scale = 1.0
        if claim.per_width:
            narrow, _, wide = KINDS[model].widths
            scale = math.log10(wide / narrow)
        found = []
        for seed in self.seeds:
            terms = [self.figure(model, term, seed, claim) for term in claim.terms]
            known = [value for value in terms if value is not None]
            if len(known) == len(terms):
                found.append(sum(known) / scale)
        return found

    def reason(self, claim: Claim, model: str) -> str:
        """Why a model has no value."""
        if (claim.skips and not KINDS[model].skips) or (claim.only and model not in claim.only):
            return "not of this model"
        for term in claim.terms:
            row = self.rows.get((term.kind or model, term.variant, self.seeds[0]))
            if row is None:
                return f"no variant '{term.variant}'"
            if term.figure not in row["figures"]:
                diagnostic = term.figure.removeprefix("trained ").partition(":")[0]
                return str(row["gaps"].get(diagnostic, "not finite"))
        return "too few seeds have it"


def verdict(claim: Claim, found: Interval) -> str:
    """Yes where the interval lies in the claim's range, no where it lies outside."""
    if claim.low < found.low and found.high < claim.high:
        return Y
    return N if found.high <= claim.low or found.low >= claim.high else U


def judged(table: Table, claim: Claim) -> dict[str, tuple[Interval, int, str]]:
    """Figure with its interval, seeds and verdict, of every model that has one."""
    found = {}
    for model in table.models:
        if (claim.skips and not KINDS[model].skips) or (claim.only and model not in claim.only):
            continue
        values = table.values(claim, model)
        closed = "(closed form)" in claim.title
        if len(values) > 1 or (closed and values):
            interval = mean(values) if len(values) > 1 else Interval(*values * 3)
            found[model] = interval, len(values), verdict(claim, interval)
    return found


def document(lines: Sequence[Line]) -> str:
    """The page, from the stored lines alone."""
    from benchmarks.claims_page import page

    table = Table(lines)
    return page(table, [(claim, judged(table, claim)) for claim in CLAIMS], PREDICTED)


if __name__ == "__main__":
    main()
