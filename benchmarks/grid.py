"""Is the plan's measured nu that of the best design? Three dense and three conv networks.

    python -m benchmarks.grid [--draws 100000] > docs/GRID.md

Members of a chain are independent, so m of them have exactly a member's nu divided by m
(docs/theory.md, section 2): one member per width is drawn (dense ones by
`benchmarks/unit_draws.py`, exact in law; see `benchmarks/conv_nets.py` for the others).
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace

import torch

import cerewrite
from benchmarks import conv_nets
from benchmarks.random_nets import Net, Spec, make_inputs
from benchmarks.unit_draws import kernels
from cerewrite import ir
from cerewrite.estimators.draws import relative_variance
from cerewrite.ir import Design
from cerewrite.planning.budgets import region_cost

NETWORKS = (
    Spec("chain", (64,) * 3, 0, "relu", "", bias=False),
    Spec("chain", (96,) * 6, 0, "relu", "", bias=False),
    Spec("chain", (64,) * 5, 0, "tanh", "", bias=False),
)
STEP = 3
Pair = tuple[float, float]
HEAD = """# Plans against the grid of designs

Written by `python -m benchmarks.grid --draws {}`; do not edit. Equal parameters, planned by nu
with free widths, nothing held, and no member narrower than 4; nu by Monte-Carlo, standard errors
in brackets. The best of a grid is chosen by its measured nu, which makes it look better than it is
by about its error. *Holds*: the plan's nu is within 3 % of the best design's, or within the
standard error of their difference.

## Dense chains

The grid has every third width from 4 on, equal in all layers, with the most members within the
budget; every design has the number of draws above.
"""
CONV = """
## Convolutional networks

Two photographs and their mirror images are the inputs, Gaussian weights of gain 2, batch norms on
the batch's statistics (4 examples). The grid has the widths 4, 5, 6, 8, 10, 12, 16 and the
network's own in the first hidden layer, the others in proportion, with the most members within
the budget. One plan takes the spatial factor as 1 (`analytic`), the others measure
it on the inputs (`spatial` in closed form, `jackknife` on the model); 8,000, 600 and 800
draws for each design of the three networks.
"""
COLUMNS = (
    "network", "before", "plan", "forecast", "measured", "best of the grid", "measured",
    "plan against it", "holds", "designs",
)  # fmt: skip


def measured(spec: Spec, m: int, widths: tuple[int, ...], draws: int) -> tuple[float, float]:
    """Nu of m members by Monte-Carlo, with its standard error."""
    member = replace(spec, widths=widths)
    found = relative_variance(kernels(Net(member), make_inputs(member, 0), draws, seed=sum(widths)))
    return found.value / m, (found.stderr or 0.0) / m


def row(spec: Spec, draws: int) -> None:
    """Plan once, measure the grid and the plan, and print one row."""
    model = Net(spec)
    analysis = cerewrite.analyze(model, make_inputs(spec, 0), gain="as-built", estimator="analytic")
    plan = cerewrite.plan(analysis, measure="nu", allow="all", widths="free")
    (region,) = (estimate.region for estimate in analysis.regions)
    assert region.sizes == spec.widths
    grid = []
    for n in range(4, spec.widths[0] + 1, STEP):
        widths = (n,) * len(spec.widths)
        one, two = (region_cost("params", region, Design(m, widths)) for m in (1, 2))
        m = 1 + (region_cost("params", region, Design(1, region.widths)) - one) // (two - one)
        grid.append((*measured(spec, m, widths, draws), f"{m} x {n}"))
    (split,) = plan.splits
    found = measured(spec, split.multiplicity, split.widths, draws)
    design = f"{split.multiplicity} x {','.join(map(str, split.widths))}"
    show(spec.name, plan, design, found, grid)


def show(
    name: str, plan: ir.Plan, design: str, found: Pair, grid: list[tuple[float, float, str]]
) -> None:
    """Print one row."""
    best, (nu, error) = min(grid), found
    holds = nu <= 1.03 * best[0] or nu - best[0] <= math.hypot(error, best[1])
    print(
        f"| {name} | {plan.baseline.nu:.4f} | {design} | {plan.planned.nu:.4f} | "
        f"{nu:.4f} ({error:.4f}) | {best[2]} | {best[0]:.4f} ({best[1]:.4f}) | "
        f"{100 * (nu / best[0] - 1):+.1f} % | {'yes' if holds else 'no'} | {len(grid)} |",
        flush=True,
    )


def conv_rows(network: conv_nets.Network) -> None:
    """Measure the grid of a convolutional network, and the plan of every estimator."""
    torch.manual_seed(0)
    model, x = network.build(network.widths), conv_nets.photographs(network.side, network.batch)
    known: dict[str, Pair] = {}

    def measure(analysis: ir.Analysis, design: conv_nets.Designs) -> tuple[float, float, str]:
        name = " + ".join(
            dict.fromkeys(f"{m} x {','.join(map(str, row))}" for m, row in design.values())
        )
        if name not in known:
            nu = conv_nets.measured(network, analysis, model, design)
            known[name] = (nu.value, nu.stderr)
            print(name, *known[name], file=sys.stderr, flush=True)
        return (*known[name], name)

    grid: list[tuple[float, float, str]] = []
    for estimator in ("analytic", "spatial", "jackknife"):
        try:
            analysis = cerewrite.analyze(model, x, gain="he", estimator=estimator)
        except cerewrite.AnalysisError as error:
            blank = " | ".join("" for _ in COLUMNS[2:])
            print(f"| {network.name}, {estimator} | refused: {error.message} | {blank}")
            continue
        plan = cerewrite.plan(analysis, measure="nu", allow="all", widths="free")
        own = {y.region.name: (1, y.region.widths) for y in analysis.regions}
        own |= {split.region: (split.multiplicity, split.widths) for split in plan.splits}
        grid = grid or [measure(analysis, design) for design in conv_nets.grid(analysis)]
        nu, error, design = measure(analysis, own)
        show(f"{network.name}, {estimator}", plan, design, (nu, error), grid)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=100_000)
    draws = parser.parse_args().draws
    rule = "| " + " | ".join("---" for _ in COLUMNS) + " |"
    torch.set_num_threads(1)
    print(HEAD.format(draws))
    print("| " + " | ".join(COLUMNS) + " |\n" + rule)
    for spec in NETWORKS:
        row(spec, draws)
    print(CONV)
    print("| " + " | ".join(COLUMNS) + " |\n" + rule)
    for network in conv_nets.NETWORKS:
        conv_rows(network)


if __name__ == "__main__":
    main()
