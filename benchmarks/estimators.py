"""What the estimators cost, beside one forward and backward of the model in the same run.

    python -m benchmarks.estimators [--quick] [--workers] [--memory]

ResNet-50 at 64 pixels, batch 8, one thread, processor seconds, medians of calls in turn: the
closed form once traced; a Monte-Carlo draw and a jackknife draw as multiples of one forward and
backward. With
``--workers``: draws per second of two processes over those of one, on a small network. With
``--memory``: what a jackknife draw adds to the process's memory at its peak, beside a training
step (forward, backward, SGD with momentum) of the same model and batch, each in a fresh process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks.zoo import example
from cerewrite.analysis import analyze
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.estimators.draws import Gates, find_units
from cerewrite.estimators.draws.influence import influences
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace


def seconds(action: Callable[[], object]) -> float:
    """Processor seconds of one call, all threads: what other load on the machine hardly moves."""
    start = time.process_time()
    action()
    return time.process_time() - start


def costs(repeats: int) -> None:
    """The closed form, one draw of Monte-Carlo, one of the jackknife, in turn."""
    torch.set_num_threads(1)
    model, _ = example("resnet50")
    x = torch.randn(8, 3, 64, 64)
    traced = trace(model, x)
    subject = subject_of(traced, model, x, Assumption(gain=2.0))
    gates = Gates(find_units(traced, subject.model), next(subject.model.parameters()))
    actions: dict[str, Callable[[], object]] = {
        "forward and backward": subject.gradients,
        "Monte-Carlo draw": lambda: subject.kernel(0),
        "jackknife draw": lambda: influences(subject, gates, 0),
        "closed form, once traced": lambda: analyze(traced, model, estimator="analytic"),
    }
    for action in actions.values():
        action()
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            found[name].append(seconds(action))
    steps = found["forward and backward"]
    for name, times in found.items():
        ratio = median(own / step for own, step in zip(times, steps, strict=True))
        print(f"{name}: {median(times):.3f} s, {ratio:.2f} of a forward and backward")


def peak(action: str) -> float:
    """Mebibytes that one action adds to this process at its peak; run it in a fresh process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, _ = example("resnet50")
    x = torch.randn(8, 3, 64, 64)
    if action == "jackknife":
        traced = trace(model, x)
        subject = subject_of(traced, model, x, Assumption(gain=2.0))
        units = find_units(traced, subject.model)
        before = _reset()
        influences(subject, Gates(units, next(subject.model.parameters())), 0)
    else:
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        before = _reset()
        model(x).square().mean().backward()
        optimiser.step()
    return _mebibytes("VmHWM") - before


def _reset() -> float:
    """Memory of the process now, from where its peak is counted (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _mebibytes("VmRSS")


def _mebibytes(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if field in line) / 1024


def memory() -> None:
    """A jackknife draw over a training step."""
    figures = {}
    for action in ("training step", "jackknife"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            figures[action] = pool.submit(peak, action).result()
        print(f"{action}: {figures[action]:.0f} MiB at its peak")
    ratio = figures["jackknife"] / figures["training step"]
    print(f"jackknife: {ratio:.2f} times the memory of a training step")


def workers() -> None:
    """Two processes over one."""
    torch.set_num_threads(1)
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    model, x = nn.Sequential(*layers), torch.randn(2, 256)
    traced = trace(model, x)
    seconds = []
    for count in (1, 2):
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            warm = Assumption(draws=32, executor=pool)
            ESTIMATORS["monte-carlo"].estimate(traced, model, x, warm)
            start = time.perf_counter()
            ESTIMATORS["monte-carlo"].estimate(
                traced, model, x, Assumption(draws=1200, executor=pool)
            )
            seconds.append(time.perf_counter() - start)
    print(f"two processes: {seconds[0] / seconds[1]:.2f} times the draws of one")


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--workers", action="store_true", help="processes too")
    parser.add_argument("--memory", action="store_true", help="memory of a jackknife draw")
    options = parser.parse_args()
    if options.memory:
        memory()
        return
    costs(1 if options.quick else 7)
    if options.workers:
        workers()


if __name__ == "__main__":
    main()
