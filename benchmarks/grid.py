"""Is the plan's measured nu that of the best design? Dense chains at equal parameters.

    python -m benchmarks.grid [--draws 20000] > docs/GRID.md

Members of a chain are independent, so m of them have exactly a member's nu divided by m
(THEORY 2): one member per width is drawn (`benchmarks/unit_draws.py`, exact in law). The grid is
every third width from 4 on, equal in all layers, with the most members that the budget holds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import cerewrite
from benchmarks.random_nets import Net, Spec, make_inputs
from benchmarks.unit_draws import kernels
from cerewrite.budgets import region_cost
from cerewrite.empirical import relative_variance

NETWORKS = (
    Spec("chain", (64,) * 3, 0, "relu", "", bias=False),
    Spec("chain", (96,) * 6, 0, "relu", "", bias=False),
    Spec("chain", (64,) * 5, 0, "tanh", "", bias=False),
)
STEP = 3
HEAD = """# Plans against the grid of designs

Written by `python -m benchmarks.grid --draws {}`; do not edit. Dense chains at equal parameters,
planned by nu; nu by Monte-Carlo, standard errors in brackets. The grid has every third width from
4 on, equal in all layers, with the most members within the budget. The best of a grid is chosen
by its measured nu, which makes it look better than it is by about its error.
"""


def measured(spec: Spec, m: int, widths: tuple[int, ...], draws: int) -> tuple[float, float]:
    """Nu of m members by Monte-Carlo, with its standard error."""
    member = replace(spec, widths=widths)
    found = relative_variance(kernels(Net(member), make_inputs(member, 0), draws, seed=sum(widths)))
    return found.value / m, (found.stderr or 0.0) / m


def row(spec: Spec, draws: int) -> None:
    """Plan once, measure the grid and the plan, and print one row."""
    model = Net(spec)
    analysis = cerewrite.analyze(model, make_inputs(spec, 0), gain="as-built")
    plan = cerewrite.plan(analysis, measure="nu")
    (region,) = (estimate.region for estimate in analysis.regions)
    assert region.sizes == spec.widths
    grid = []
    for n in range(4, spec.widths[0] + 1, STEP):
        widths = (n,) * len(spec.widths)
        one, two = (region_cost("params", region, m, widths) for m in (1, 2))
        m = 1 + (region_cost("params", region, 1, region.widths) - one) // (two - one)
        grid.append((*measured(spec, m, widths, draws), f"{m} x {n}"))
    best = min(grid)
    (split,) = plan.splits
    nu, error = measured(spec, split.multiplicity, split.widths, draws)
    design = f"{split.multiplicity} x {','.join(map(str, split.widths))}"
    print(
        f"| {spec.name} | {plan.baseline.nu:.4f} | {design} | {plan.planned.nu:.4f} | "
        f"{nu:.4f} ({error:.4f}) | {best[2]} | {best[0]:.4f} ({best[1]:.4f}) | "
        f"{100 * (nu / best[0] - 1):+.1f} % | {len(grid)} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=20_000)
    draws = parser.parse_args().draws
    print(HEAD.format(draws))
    print("| network | before | plan | forecast | measured | best of the grid | measured | "
          "plan against it | designs |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for spec in NETWORKS:
        row(spec, draws)


if __name__ == "__main__":
    main()
