"""ResNet-50's (m, n) designs at 64 pixels: does an estimator rank them as Monte-Carlo does?

    python benchmarks/resnet_designs.py [--draws 60] [--quick]

Designs are m x n grouped bottlenecks (n: one member's width in the first stage), batch norm in
training mode. Prints nu by every estimator and Spearman's correlation with Monte-Carlo, with a
90 % interval over resampled draws.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from zoo import EXAMPLES

from cerewrite.analysis import analyze
from cerewrite.empirical import relative_variance
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.tracer import trace

DESIGNS = ((1, 8), (1, 16), (4, 8), (1, 32), (4, 16), (1, 64), (12, 10), (32, 4), (1, 128))


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


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of distinct values."""
    return np.argsort(np.argsort(values))


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of values without ties."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def measure(model: nn.Module, x: Tensor, draws: int, jack: int) -> dict[str, object]:
    """Nu by every estimator, and the kernels behind Monte-Carlo's."""
    traced = trace(model, x)
    found: dict[str, object] = {"analytic": analyze(traced, model, gain="he").nu.value}
    start = time.perf_counter()
    subject = subject_of(traced, model, x, Assumption(gain=2.0))
    found["kernels"] = [subject.kernel(index) for index in range(draws)]
    found["seconds per draw"] = (time.perf_counter() - start) / draws
    start = time.perf_counter()
    layers = (
        ESTIMATORS["jackknife"]
        .estimate(traced, model, x, Assumption(gain=2.0, draws=jack, seed=1))
        .layers
    )
    found["jackknife"] = math.expm1(sum(layer.kappa for layer in layers))
    found["jackknife stderr"] = math.sqrt(sum((layer.stderr or 0) ** 2 for layer in layers))
    found["seconds per jackknife draw"] = (time.perf_counter() - start) / jack
    return found


def main() -> None:
    """Measure every design and compare the rankings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--jackknife", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    designs = DESIGNS[::3] if options.quick else DESIGNS
    draws = 12 if options.quick else options.draws
    x = torch.randn(options.batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = []
    for m, n in designs:
        row = measure(design(m, n), x, draws, options.jackknife)
        nu = relative_variance(row["kernels"])  # type: ignore[arg-type]
        print(
            f"{m:3} x {n:3}  monte-carlo {nu.value:.4f}({nu.stderr:.4f})  "
            f"jackknife {row['jackknife']:.4f}({row['jackknife stderr']:.4f})  "
            f"analytic {row['analytic']:.4f}  seconds {row['seconds per draw']:.2f} "
            f"{row['seconds per jackknife draw']:.2f}",
            flush=True,
        )
        rows.append(row)
    rng = np.random.default_rng(0)
    for name in ("analytic", "jackknife"):
        values = np.array([row[name] for row in rows], dtype=float)
        kernels = np.array([row["kernels"] for row in rows])
        nus = kernels.var(1, ddof=1) / kernels.mean(1) ** 2
        resampled = []
        for _ in range(2000):
            picked = kernels[:, rng.integers(0, draws, draws)]
            resampled.append(spearman(values, picked.var(1) / picked.mean(1) ** 2))
        low, high = np.quantile(resampled, [0.05, 0.95])
        print(f"{name}: Spearman {spearman(values, nus):.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
