"""What the kernel monitor costs: training with it over training without, interleaved.

    python -m benchmarks.monitor [--rounds 9]

A digits MLP and a digits CNN, Adam, batch 128, one thread, the monitor at its default interval
with four probes. A round trains both ways for a whole number of intervals, one interval at a
time in turn; the ratio of a round is that of the two sums of CPU seconds, which other processes
disturb least. The median over the rounds is printed with their range.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.warm_start import MODELS, digits
from cerewrite.training import KernelMonitor, gram

PROBES, INTERVALS = 4, 2
EVERY: int = inspect.signature(KernelMonitor).parameters["every"].default


def trainer(name: str, *, watch: bool) -> Callable[[], float]:
    """Something that trains for one interval and returns the CPU seconds it took."""
    torch.manual_seed(0)
    model, data = MODELS[name][0](), digits(0)
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = KernelMonitor(model, data[0][:PROBES]) if watch else None
    generator = torch.Generator().manual_seed(0)

    def train() -> float:
        start = time.process_time()
        for _ in range(EVERY):
            batch = torch.randint(len(data[0]), (128,), generator=generator)
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(data[0][batch]), data[1][batch])
            loss.backward()
            optimiser.step()
            if monitor is not None:
                monitor.step(loss)
        return time.process_time() - start

    return train


def ratios(name: str, rounds: int) -> list[float]:
    """CPU seconds with the monitor over those without, per round."""
    plain, watched = trainer(name, watch=False), trainer(name, watch=True)
    found = []
    for index in range(rounds + 1):
        sums = [0.0, 0.0]
        for turn in range(INTERVALS):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            for which in order:
                sums[which] += (plain, watched)[which]()
        if index:  # the first round warms up
            found.append(sums[1] / sums[0])
    return found


def share(name: str, repeats: int = 15) -> float:
    """Median CPU seconds of one look, over those of one interval of training without."""
    model, data = MODELS[name][0](), digits(0)
    probes, looks = (data[0][:PROBES],), []
    for _ in range(repeats):
        start = time.process_time()
        gram(model, probes)
        looks.append(time.process_time() - start)
    train = trainer(name, watch=False)
    return statistics.median(looks) / statistics.median(train() for _ in range(5))


def main() -> None:
    """Print the median ratio of every model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for name in MODELS:
        found = ratios(name, rounds)
        print(
            f"{name}: {statistics.median(found):.3f} times the training time "
            f"(every {EVERY} steps, {PROBES} probes; {rounds} rounds, "
            f"{min(found):.3f} to {max(found):.3f}); "
            f"one look costs {share(name):.2%} of an interval"
        )


if __name__ == "__main__":
    main()
