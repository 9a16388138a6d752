"""Every estimator against Monte-Carlo on random architectures; writes docs/ACCURACY.md.

    python -m benchmarks.accuracy [--quick] [--workers 2] [--groups TITLE ...] [--keep]

Chains, residual, concatenated (DenseNet-like), gated (GLU-like) and convolutional networks of
`random_nets`, depth 1 to 20, widths 8 to 256 (8 to 32 for convolutions), eight activations, with
and without norms and biases. Errors are relative to Monte-Carlo's nu, which has an error itself:
both are printed. The literature's ``exp(5 sum 1/n) - 1`` stands beside them. ``--keep`` takes
Monte-Carlo's figures from the document and measures the estimators anew, in minutes.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks import batch_draws, levels, unit_draws
from benchmarks.random_nets import DENSE, Net, Spec, draw_spec, make_inputs
from cerewrite.analysis import analyze
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.estimators.draws import log_variance, needed_draws, relative_variance
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Estimate

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "ACCURACY.md"
UNIT_DRAWS = 100_000
DRAWN_WEIGHTS = 600_000_000
"""Weights drawn per network whose batch norms mix examples, between 6,000 and 100,000 draws."""
LARGEST = 1.0
"""Networks of a larger nu are left out: by the closed form before they are measured, and by
Monte-Carlo from the quantiles."""


@dataclass(frozen=True)
class Group:
    """One set of networks: how many, of which kinds, with norms or not."""

    title: str
    kinds: tuple[str, ...]
    normed: bool
    count: int
    seed: int


GROUPS = (
    Group("Dense, no norms", DENSE, False, 60, 1),
    Group("Dense, normed", DENSE, True, 24, 2),
    Group("Convolutional, no norms", ("conv",), False, 24, 3),
    Group("Convolutional, normed", ("conv",), True, 12, 4),
)


@dataclass(frozen=True)
class Row:
    """One network's figures."""

    name: str
    kind: str
    measured: float
    stderr: float
    log_variance: float
    draws: int
    analytic: float
    jackknife: float
    jackknife_stderr: float
    literature: float


def specs(group: Group) -> list[Spec]:
    """The networks of a group: those whose closed form is at most 1."""
    rng = random.Random(group.seed)
    found: list[Spec] = []
    while len(found) < group.count:
        spec = draw_spec(rng, group.kinds, normed=group.normed)
        net, x = Net(spec), make_inputs(spec, 0)
        if analyze(trace(net, x), net, x, estimator="analytic").nu.value <= LARGEST:
            found.append(spec)
    return found


def measure(spec: Spec, seed: int, most: int, jack: int, kept: Row | None = None) -> Row:
    """Every estimator on one network, weights as built; Monte-Carlo's figures may be kept."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net, x = Net(spec), make_inputs(spec, seed)
    traced = trace(net, x)
    closed = analyze(traced, net, x, estimator="analytic").nu.value
    layers = ESTIMATORS["jackknife"].estimate(traced, net, x, Assumption(draws=jack, seed=2)).layers
    product = math.prod(1 + layer.kappa for layer in layers)
    error = product * math.sqrt(sum((layer.stderr or 0.0) ** 2 for layer in layers))
    if kept is not None:
        return replace(kept, analytic=closed, jackknife=product - 1, jackknife_stderr=error)
    draws = round(min(most, max(1000, needed_draws(math.log1p(closed), 0.03))))
    nu, spread = reference(spec, net, x, draws)
    return Row(
        name=spec.name,
        kind=spec.kind,
        measured=nu.value,
        stderr=nu.stderr or 0.0,
        log_variance=spread,
        draws=nu.samples,
        analytic=closed,
        jackknife=product - 1,
        jackknife_stderr=error,
        literature=math.expm1(5 * sum(1 / width for width in spec.widths)),
    )


def reference(spec: Spec, net: Net, x: torch.Tensor, draws: int) -> tuple[Estimate, float]:
    """Monte-Carlo's nu and Var[log K]; dense networks by many draws at a time."""
    if spec.kind == "conv":
        traced = trace(net, x)
        found = ESTIMATORS["monte-carlo"].estimate(traced, net, x, Assumption(draws=draws, seed=1))
        assert found.nu is not None and found.log_variance is not None
        return found.nu, found.log_variance.value
    if spec.norm == "batch":
        weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, torch.nn.Linear))
        count, name = min(UNIT_DRAWS, max(6000, DRAWN_WEIGHTS // weights)), "batch draws"
        kernels = batch_draws.kernels(net, x, count)
    else:
        count, name = UNIT_DRAWS, "unit draws"
        kernels = unit_draws.kernels(net, x, count)
    ratio = relative_variance(kernels)
    value = Estimate(ratio.value, ratio.stderr, count, name, "benchmarks")
    return value, log_variance(kernels[kernels > 0]).value


def errors(rows: Sequence[Row], figure: Callable[[Row], float]) -> np.ndarray:
    """Absolute relative errors against Monte-Carlo."""
    return np.array([abs(figure(row) / row.measured - 1) for row in rows])


COLUMNS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("analytic", lambda row: row.analytic),
    ("jackknife", lambda row: row.jackknife),
    ("`exp(5 sum 1/n) - 1`", lambda row: row.literature),
)


def summary(title: str, rows: Sequence[Row]) -> str:
    """One line of the summary table: networks whose nu, by Monte-Carlo, is at most 1."""
    rows = [row for row in rows if row.measured <= LARGEST]
    cells = [title, str(len(rows))]
    noise = np.median([row.stderr / row.measured for row in rows])
    cells.append(f"{noise:.1%}")
    for _, figure in COLUMNS:
        found = errors(rows, figure)
        cells.append(f"{np.median(found):.1%} / {np.quantile(found, 0.95):.1%}")
    return "| " + " | ".join(cells) + " |"


def table(rows: Sequence[Row]) -> list[str]:
    """One group's networks."""
    lines = [
        "| network | Monte-Carlo | draws | Var[log K] | analytic | jackknife | literature |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: (row.kind, row.measured)):
        lines.append(
            f"| {row.name} | {row.measured:.4f} ({row.stderr:.4f}) | {row.draws} "
            f"| {row.log_variance:.4f} | {row.analytic:.4f} "
            f"| {row.jackknife:.4f} ({row.jackknife_stderr:.4f}) | {row.literature:.3g} |"
        )
    return lines


def known(text: str) -> dict[str, list[Row]]:
    """The rows of every group in a document that was written before."""
    found: dict[str, list[Row]] = {}
    for *_, part in levels.parts(text):
        text = text.replace(part, "")
    for section in text.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        lines = [line for line in rest.splitlines() if line.startswith("| ")][2:]
        found[title] = [_parsed(line.strip("| ").split(" | ")) for line in lines]
    return found


def _parsed(cells: Sequence[str]) -> Row:
    name, nu, draws, spread, closed, jack, literature = cells
    measured, stderr = (float(part) for part in nu.rstrip(")").split(" ("))
    jackknife, jack_stderr = (float(part) for part in jack.rstrip(")").split(" ("))
    return Row(
        name, name.split()[0], measured, stderr, float(spread), int(draws), float(closed),
        jackknife, jack_stderr, float(literature),
    )  # fmt: skip


def kept_rows(rows: Sequence[Row], chosen: Sequence[Spec]) -> list[Row | None]:
    """The row of every network, if any; namesakes are told apart by their closed form's figure."""
    left, found = list(rows), list[Row | None]()
    for spec in chosen:
        net, x = Net(spec), make_inputs(spec, 0)
        closed = analyze(trace(net, x), net, x, estimator="analytic").nu.value
        named = [row for row in left if row.name == spec.name]
        row = min(named, key=lambda row: abs(row.analytic - closed), default=None)
        found.append(row)
        if row is not None:
            left.remove(row)
    return found


def document(found: dict[str, list[Row]]) -> str:
    """The whole of ACCURACY.md."""
    heads = " | ".join(name for name, _ in COLUMNS)
    lines = [
        "# Accuracy of the estimators",
        "",
        "Written by `benchmarks/accuracy.py`; do not edit. Relative errors of nu against",
        "Monte-Carlo, median / 95th percentile, on random networks. Those with a closed form",
        "above 1 are not drawn, those with a nu above 1 by Monte-Carlo are listed but not counted.",
        "NTK parametrisation, weights as built, standard errors in brackets. Monte-Carlo's own",
        "median relative error bounds what can be seen: dense networks without batch norm are",
        "drawn exactly in law (`benchmarks/unit_draws.py`), 100,000 draws each, those with one",
        "many networks at a time (`benchmarks/batch_draws.py`), draws as tabled. The",
        "jackknife's nu is `prod(1 + kappa) - 1`.",
        "",
        f"| networks | count | Monte-Carlo's error | {heads} |",
        "| --- | --- | --- | " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    for title, rows in found.items():
        lines.append(summary(title, rows))
        kinds = sorted({row.kind for row in rows})
        if len(kinds) > 1:
            lines += [
                summary(f"— {kind}", [row for row in rows if row.kind == kind]) for kind in kinds
            ]
    for title, rows in found.items():
        lines += ["", f"## {title}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every group, in parallel processes, and write the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a few networks, printed only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most", type=int, default=6000, help="most draws per network")
    parser.add_argument("--groups", nargs="*", help="groups to measure; others keep their rows")
    parser.add_argument("--keep", action="store_true", help="keep Monte-Carlo's figures")
    options = parser.parse_args()
    most, jack = (1000, 8) if options.quick else (options.most, 32)
    reading = options.groups or options.keep
    found = known(DOCUMENT.read_text(encoding="utf-8")) if reading else {}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for group in GROUPS:
            if options.groups and group.title not in options.groups:
                continue
            chosen = specs(group)[: 4 if options.quick else None]
            kept = kept_rows(found[group.title], chosen) if options.keep else [None] * len(chosen)
            futures = [
                pool.submit(measure, spec, i, most, jack, row)
                for i, (spec, row) in enumerate(zip(chosen, kept, strict=True))
            ]
            found[group.title] = [future.result() for future in futures]
            print(summary(group.title, found[group.title]), flush=True)
    text = document(found)
    if options.quick:
        print(text)
    else:
        DOCUMENT.parent.mkdir(exist_ok=True)
        before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
        for begin, end, part in reversed(levels.parts(before)):
            text = levels.placed(text, part, begin, end)
        DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
