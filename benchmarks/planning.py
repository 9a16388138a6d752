"""What planning costs, and how it grows with the model.

    python -m benchmarks.planning

Medians of five, in CPU seconds (other programs on the machine do not count), by the default
measure and by nu, run side by side; chains of 125 to 1,000 layers show the growth as a ratio to
the shortest.
"""

from __future__ import annotations

import statistics
import time

from cerewrite.ir import Analysis
from cerewrite.planning import make_plan
from cerewrite.planning.measures import DEFAULT
from tests.planning.builders import mlp, resnet, vgg16

REPEATS = 5
MEASURES = (DEFAULT, "nu")


def medians(analysis: Analysis, budget: str) -> list[float]:
    """Median CPU seconds of one plan by each measure."""
    times: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for _ in range(REPEATS):
        for measure, found in times.items():
            start = time.process_time()
            make_plan(
                analysis, budget=budget, measure=measure, min_width=1, allow="all", widths="free"
            )
            found.append(time.process_time() - start)
    return [statistics.median(found) for found in times.values()]


def main() -> None:
    """Print the table."""
    print(f"{'CPU seconds':37}" + "".join(f"{measure:>14}" for measure in MEASURES))
    models = {
        "ResNet-50-like": (resnet(), "params"),
        "ResNet-152-like": (resnet((3, 8, 36, 3)), "params"),
        "VGG-16-like": (vgg16(), "params"),
    }
    for name, (analysis, budget) in models.items():
        seconds = medians(analysis, budget)
        print(f"{name:20} {budget:16}" + "".join(f"{s:14.2f}" for s in seconds), flush=True)
    shortest = None
    for depth in (125, 250, 500, 1000):
        seconds = medians(mlp([512] * depth), "params=4x")
        shortest = shortest or seconds
        growth = ", ".join(f"{s / t:.1f}x" for s, t in zip(seconds, shortest, strict=True))
        row = f"MLP of {depth:5,} layers   params=4x       "
        print(row + "".join(f"{s:14.2f}" for s in seconds) + f"   {growth}", flush=True)


if __name__ == "__main__":
    main()
