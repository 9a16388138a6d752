"""Time `BlockDiagonalLinear` against a dense linear layer of the same width.

    python -m benchmarks.block_diagonal [--width 1024] [--batch 512] [--runs 31] [--threads 1]

Medians of runs that took turns, each of 5 ms or more of calls, as a share of the dense layer's
time; the ideal is 1 / members. Freed memory stays with the process. On one thread the clock is
that of the thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.warm import keep_memory
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.nn.blockwise import NARROWEST
from cerewrite.timing import Sample, interleave

MEMBERS = (2, 4, 8, 16, 32, 64)
RUNS = 31


@dataclass(frozen=True, slots=True)
class Share:
    """What a block-diagonal layer takes, beside the dense one.

    Attributes:
        members: its members.
        share: its median over the dense layer's.
        spread: half the two interquartile ranges, combined, in the share's unit.
    """

    members: int
    share: float
    spread: float

    @property
    def of_ideal(self) -> float:
        """The share over its ideal, 1 / members."""
        return self.share * self.members


def spread_of(one: float, one_range: float, other: float, other_range: float) -> float:
    """What the interquartile ranges of two medians leave open of ``other / one``, to either side.

    Example:
        >>> round(spread_of(2.0, 0.2, 1.0, 0.0), 3)
        0.025
    """
    return 0.5 * other / one * ((one_range / one) ** 2 + (other_range / other) ** 2) ** 0.5


def forward(layer: nn.Module, x: Tensor, pull: Tensor) -> None:
    """One forward pass without a graph."""
    with torch.no_grad():
        layer(x)


def train(layer: nn.Module, x: Tensor, pull: Tensor) -> None:
    """One forward and one backward pass, to the input and the parameters."""
    torch.autograd.grad(layer(x), [x, *layer.parameters()], pull)


def shares(
    width: int,
    batch: int,
    step: Callable[[nn.Module, Tensor, Tensor], None],
    runs: int,
    members: tuple[int, ...] = MEMBERS,
) -> tuple[Sample, list[Share]]:
    """The dense layer's time, and every block-diagonal layer's share of it.

    Args:
        width: features in and out.
        batch: rows per call.
        step: `forward` or `train`.
        runs: runs per median.
        members: multiplicities; those that do not divide the width are left out.
    """
    torch.manual_seed(0)
    fitting = [m for m in members if width % m == 0]
    layers = [nn.Linear(width, width), *(BlockDiagonalLinear(width, width, m) for m in fitting)]
    x, pull = torch.randn(batch, width, requires_grad=True), torch.randn(batch, width)
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    actions = [partial(step, layer, x, pull) for layer in layers]
    dense, *found = interleave(actions, runs=runs, clock=clock)
    return dense, [
        Share(
            m,
            sample.median / dense.median,
            spread_of(dense.median, dense.spread, sample.median, sample.spread),
        )
        for m, sample in zip(fitting, found, strict=True)
    ]


def rows(width: int, batch: int, runs: int) -> Iterator[str]:
    """Lines of a table: members, ideal, and share, spread and share of the ideal, twice."""
    (_, ahead), (_, back) = (shares(width, batch, step, runs) for step in (forward, train))
    for one, two in zip(ahead, back, strict=True):
        yield (
            f"| {width:,} | {one.members} | {1 / one.members:.3f} "
            f"| {one.share:.3f} ± {one.spread:.3f} | {one.of_ideal:.2f} "
            f"| {two.share:.3f} ± {two.spread:.3f} | {two.of_ideal:.2f} |"
        )


def remarks() -> list[str]:
    """What to know beside the table; the load is that of now, so ask after measuring."""
    load = f" (load {os.getloadavg()[0]:.1f} here)" if hasattr(os, "getloadavg") else ""
    return [
        "The dense layer is `torch.nn.Linear`, whose products are MKL's; the block-diagonal one's",
        f"are oneDNN's where its blocks have {NARROWEST} features or more, but for the weight's",
        "gradient: a share below the ideal is the work of that library, not of the structure.",
        f"Other work on the machine{load} empties caches, which costs narrow members most.",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, nargs="+", default=[1024, 4096], help="features")
    parser.add_argument("--batch", type=int, default=512, help="rows per call")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs per median, at least 5")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"batch {options.batch}, {options.threads} threads, {keep_memory()}")
    print("| width | members | ideal | forward | of ideal | with backward | of ideal |")
    for width in options.width:
        for line in rows(width, options.batch, options.runs):
            print(line, flush=True)
    print(*remarks(), sep="\n")


if __name__ == "__main__":
    main()
