"""What planning costs, and how it grows with the model.

    python -m benchmarks.planning

Medians of five, in seconds; chains of 125 to 1,000 layers show the growth as a ratio to the
shortest.
"""

from __future__ import annotations

import statistics
import time

from cerewrite.ir import Analysis
from cerewrite.planner import make_plan
from tests.planner.builders import mlp, resnet, vgg16

REPEATS = 5


def median(analysis: Analysis, budget: str) -> float:
    """Median seconds of one plan."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        make_plan(analysis, budget=budget)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    models = {
        "ResNet-50-like": (resnet(), "params"),
        "ResNet-152-like": (resnet((3, 8, 36, 3)), "params"),
        "VGG-16-like": (vgg16(), "params"),
    }
    for name, (analysis, budget) in models.items():
        print(f"{name:16} {budget:10} {median(analysis, budget):6.2f} s", flush=True)
    shortest = None
    for depth in (125, 250, 500, 1000):
        seconds = median(mlp([512] * depth), "params=4x")
        shortest = shortest or seconds
        print(f"MLP of {depth:5,} layers params=4x {seconds:6.2f} s {seconds / shortest:5.1f}x")


if __name__ == "__main__":
    main()
