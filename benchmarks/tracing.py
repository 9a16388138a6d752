"""What tracing and analysis cost, beside `torch.export` alone in the same run.

    python -m benchmarks.tracing

Medians of five, interleaved: (a) ResNet-50 and, where torchvision is installed, ViT-L: tracing
with analysis, and the recorder alone, over `torch.export`; analysis alone in seconds; (b) peak
memory of analysing an MLP of 7 billion parameters on meta.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.zoo import example
from benchmarks.zoo.sources import torchvision_models
from cerewrite.analysis import analyze
from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.recorder_rung import recorded_ops

REPEATS = 5


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def beside_export(label: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Ratio of tracing to export, and the seconds of an analysis."""
    model.eval()
    traced = trace(model, inputs)
    actions: dict[str, Callable[[], object]] = {
        "torch.export": lambda: torch.export.export(model, inputs, strict=False),
        "trace": lambda: trace(model, inputs),
        "analyse": lambda: analyze(traced, model, gain="he", estimator="analytic"),
        "recorder": lambda: recorded_ops(model, inputs, {}),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(REPEATS):
        for name, action in actions.items():
            times[name].append(seconds(action))
    median = {name: statistics.median(values) for name, values in times.items()}
    both = (median["trace"] + median["analyse"]) / median["torch.export"]
    above = median["trace"] + median["analyse"] - median["torch.export"]
    print(f"{label}: trace and analyse take {above:.2f} s beyond torch.export")
    print(f"{label}: trace and analyse {both:.2f} of torch.export")
    print(f"{label}: analyse {median['analyse']:.3f} s")
    recorder = median["recorder"] / median["torch.export"]
    seconds_alone = f"{median['recorder']:.2f} s"
    print(f"{label}: the recorder alone {seconds_alone}, {recorder:.2f} of torch.export")


def vit() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """ViT-L/16 of torchvision with random weights, and two images."""
    return torchvision_models().vit_l_16(), (torch.randn(2, 3, 224, 224),)


def large() -> None:
    """Analyse 7 billion parameters on meta and print the peak of the process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.device("meta"):
        layers = [m for _ in range(27) for m in (nn.Linear(16384, 16384), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(16384, 10))
    count = sum(p.numel() for p in model.parameters())
    taken = seconds(
        lambda: analyze(
            trace(model, torch.empty(2, 16384, device="meta")), model, estimator="analytic"
        )
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{count / 1e9:.2f} billion parameters on meta: {taken:.1f} s")
    print(f"peak {after / 1e6:.2f} GB, {(after - before) / 1e6:.2f} GB above the start")


if __name__ == "__main__":
    if "--large" in sys.argv:
        large()
    else:
        beside_export("ResNet-50", *example("resnet50"))
        try:
            beside_export("ViT-L", *vit())
        except ImportError as error:
            print(f"ViT-L: not measured ({error})")
        subprocess.run([sys.executable, "-m", "benchmarks.tracing", "--large"], check=True)
