"""Do the papers' claims come true on eight small models? Writes docs/CLAIMS.md.

    python -m benchmarks.claims [--seeds 8] [--models 'res*'] [--no-run]

The claims and what was expected of them stand in benchmarks/claims_expected.py and were committed
before the first run; the models in benchmarks/claims_models.py. Figures go to
benchmarks/claims.jsonl, a line per model, variant and seed; a run that was broken off goes on from
there. Eight seeds take 11 minutes of one core. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.claims_expected import CLAIMS
from benchmarks.claims_models import (
    BATCH,
    DRAWS,
    KINDS,
    RANDOM,
    RATE,
    SEEDS,
    STEP_BATCH,
    STEPS,
    TRAIN,
    Kind,
    Shape,
    build,
    size,
    variants,
)
from benchmarks.claims_page import document
from benchmarks.lines import add_line, read_lines
from cerewrite import diagnostics
from cerewrite.estimators.draws import make_subject, relative_variance
from cerewrite.frontend import tracing
from cerewrite.ir.diagnosed import Diagnosis

ROOT = Path(__file__).resolve().parents[1]
STORE = Path(__file__).with_name("claims.jsonl")
DOCUMENT = ROOT / "docs" / "CLAIMS.md"

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


if __name__ == "__main__":
    main()
