"""ResNet-50's (m, n) designs at 64 pixels: does an estimator rank them as Monte-Carlo does?

    python -m benchmarks.resnet_designs [--draws 400]

Designs are m x n grouped bottlenecks (n: one member's width in the first stage), batch norm in
training mode, 4 examples of white noise. Kernels are kept in ``docs/resnet50.json`` and only
those that miss are drawn; ``docs/RESNET50.md`` is written from them (`benchmarks.resnet_report`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo import EXAMPLES
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.estimators.draws import Subject
from cerewrite.estimators.maps.influence import spatial_kappas
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace
from cerewrite.ir import TracedModel

STORE = Path(__file__).resolve().parent.parent / "docs" / "resnet50.json"
DESIGNS = ((1, 8), (3, 4), (1, 16), (3, 8), (1, 32), (6, 8), (1, 72), (12, 10), (24, 8))
"""Total widths 8 to 192, a factor 1.3 to 2 apart, single networks and ensembles in turn."""
BATCH = 4
ROUND = 10
"""Draws of a design before the next design's turn."""
ASSUMED = Assumption(gain=2.0)
NAMES = ("analytic", "spatial", "jackknife")


def example_module() -> ModuleType:
    """The module of the ResNet-50 example."""
    path = EXAMPLES / "resnet50" / "model.py"
    spec = importlib.util.spec_from_file_location("resnet50_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def design(m: int, n: int) -> nn.Module:
    """ResNet-50 whose bottlenecks are m members of width n (doubling per stage)."""
    model: nn.Module = example_module().build_model()
    for block in model.modules():
        if type(block).__name__ != "Bottleneck":
            continue
        old = block.conv2
        width = m * n * old.out_channels // 64
        block.conv1 = nn.Conv2d(block.conv1.in_channels, width, 1, bias=False)
        block.conv2 = nn.Conv2d(width, width, 3, stride=old.stride, padding=1, groups=m, bias=False)
        block.conv3 = nn.Conv2d(width, block.conv3.out_channels, 1, bias=False)
        block.bn1, block.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
    return model


def inputs() -> Tensor:
    """White noise, ``[4, 3, 64, 64]``."""
    return torch.randn(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def traced(m: int, n: int) -> tuple[TracedModel, nn.Module]:
    """A design and its trace."""
    torch.manual_seed(0)
    model = design(m, n)
    return trace(model, inputs()), model


def subject(m: int, n: int) -> Subject:
    """A design, ready to be drawn."""
    graph, model = traced(m, n)
    return subject_of(graph, model, inputs(), ASSUMED)


def read() -> dict[str, Any]:
    """What was measured, by ``m x n``."""
    found: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    return found


def write(found: dict[str, Any]) -> None:
    """Keep what was measured."""
    part = STORE.with_suffix(".part")
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
    part.write_text(f"{{\n{rows}\n}}\n")
    part.replace(STORE)


def sample(draws: int) -> Iterator[tuple[str, int]]:
    """Draw the kernels that miss, a round of every design at a time."""
    subjects = {f"{m} x {n}": subject(m, n) for m, n in DESIGNS}
    for stop in range(ROUND, draws + 1, ROUND):
        for name, own in subjects.items():
            kernels = read().get(name, {}).get("kernels", [])
            if len(kernels) >= stop:
                continue
            kernels += [float(f"{own.kernel(i):.7g}") for i in range(len(kernels), stop)]
            found = read()
            found.setdefault(name, {})["kernels"] = kernels
            write(found)
            yield name, len(kernels)


@cache
def walked() -> tuple[tuple[str, float], ...]:
    """The spatial estimator's kappa of every width class, at one unit, by a layer that writes it.

    Widths do not enter its propagation: one walk serves all designs.
    """
    graph, model = traced(1, 64)
    found = spatial_kappas(graph, model, inputs(), ASSUMED)
    return tuple((min(names), kappa) for names, kappa in found)


def estimate(name: str, m: int, n: int, draws: int) -> dict[str, float]:
    """Nu of a design by an estimator, as `prod(1 + kappa) - 1` over layers (spatial: classes)."""
    graph, model = traced(m, n)
    if name == "spatial":
        widths = {layer.name: layer.out_channels for layer in graph.layers}
        kappas, errors = [kappa / widths[layer] for layer, kappa in walked()], [0.0]
    else:
        assumption = replace(ASSUMED, draws=draws, seed=1) if name == "jackknife" else ASSUMED
        layers = ESTIMATORS[name].estimate(graph, model, inputs(), assumption).layers
        kappas = [layer.kappa for layer in layers]
        errors = [layer.stderr or 0.0 for layer in layers]
    product = math.prod(1 + kappa for kappa in kappas)
    found = {"nu": product - 1, "error": product * math.hypot(*errors)}
    found = {key: float(f"{value:.5g}") for key, value in found.items()}
    return found | ({"draws": draws} if name == "jackknife" else {})


def estimates(draws: int, *, again: bool) -> Iterator[str]:
    """The estimates that miss, or all of them."""
    for name in NAMES:
        for m, n in DESIGNS:
            label = f"{m} x {n}"
            if again or name not in read().get(label, {}):
                value = estimate(name, m, n, draws)
                found = read()
                found.setdefault(label, {})[name] = value
                write(found)
                yield f"{label}: {name} {value}"


def main() -> None:
    """Measure what misses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=400, help="Monte-Carlo's, per design")
    parser.add_argument("--jackknife", type=int, default=6, help="draws per design")
    parser.add_argument("--again", action="store_true", help="all estimates anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in estimates(options.jackknife, again=options.again):
        print(line, flush=True)
    for name, count in sample(options.draws):
        print(f"{name}: {count} draws", flush=True)


if __name__ == "__main__":
    main()
