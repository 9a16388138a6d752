"""The closed form with and without the inputs' spatial factor, on the random conv networks.

    python -m benchmarks.spatial

The networks are those of `accuracy.py`, and so is Monte-Carlo's nu, read from docs/ACCURACY.md;
where two networks have one name it is drawn again, 1000 times.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from benchmarks.accuracy import DOCUMENT, GROUPS, Group, reference, specs
from benchmarks.random_nets import Net, make_inputs
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace


def known() -> dict[str, list[float]]:
    """Monte-Carlo's nu by the network's name."""
    found: dict[str, list[float]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 6 and cells[1].startswith("conv "):
            found.setdefault(cells[1], []).append(float(cells[2].split()[0]))
    return found


def compare(group: Group, references: dict[str, list[float]]) -> None:
    """One group's table and summary."""
    errors = []
    print(f"{group.title}\n| network | Monte-Carlo | rho = 1 | spatial | seconds |")
    for index, spec in enumerate(specs(group)):
        torch.manual_seed(index)
        net, x = Net(spec), make_inputs(spec, index)
        traced, given = trace(net, x), references.get(spec.name, [])
        nu = given[0] if len(given) == 1 else reference(spec, net, x, 1000)[0].value
        start, found = time.perf_counter(), []
        for name in ("analytic", "spatial"):
            start = time.perf_counter()
            layers = ESTIMATORS[name].estimate(traced, net, x, Assumption()).layers
            found.append(math.prod(1 + layer.kappa for layer in layers) - 1)
        seconds = time.perf_counter() - start
        errors.append([abs(value / nu - 1) for value in found])
        cells = f"{nu:.4f} | {found[0]:.4f} | {found[1]:.4f} | {seconds:.2f}"
        print(f"| {spec.name}, smooth {spec.smooth} | {cells} |", flush=True)
    for name, row in zip(("rho = 1", "spatial"), np.array(errors).T, strict=True):
        print(f"{name}: median error {np.median(row):.1%}, 95 % {np.quantile(row, 0.95):.1%}")


def main() -> None:
    """Both groups of convolutional networks."""
    torch.set_num_threads(1)
    references = known()
    for group in GROUPS:
        if group.kinds == ("conv",):
            compare(group, references)


if __name__ == "__main__":
    main()
