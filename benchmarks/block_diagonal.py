"""Time `BlockDiagonalLinear` against a dense linear layer of the same width.

    python -m benchmarks.block_diagonal [--width 1024] [--batch 256] [--repeats 9] [--threads 1]

Medians of interleaved runs, as a share of the dense layer's time; the ideal is 1 / members.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from cerewrite.nn import BlockDiagonalLinear


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024, help="features in and out")
    parser.add_argument("--batch", type=int, default=256, help="rows per call")
    parser.add_argument("--repeats", type=int, default=9, help="runs per median, at least 5")
    parser.add_argument(
        "--threads", type=int, help="torch threads; torch's own choice if not given"
    )
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    return parser


def forward(layer: nn.Module, x: torch.Tensor) -> None:
    """One forward pass without a graph."""
    with torch.no_grad():
        layer(x)


def train(layer: nn.Module, x: torch.Tensor) -> None:
    """One forward and one backward pass, to the input and the parameters."""
    layer.zero_grad(set_to_none=True)
    layer(x.detach().requires_grad_()).sum().backward()


def medians(
    layers: dict[int, nn.Module],
    x: torch.Tensor,
    step: Callable[[nn.Module, torch.Tensor], None],
    repeats: int,
) -> dict[int, float]:
    """Median seconds per layer; the layers take turns, so that drift hits all alike."""
    seconds: dict[int, list[float]] = {members: [] for members in layers}
    for layer in layers.values():
        step(layer, x)
    for _ in range(max(repeats, 5)):
        for members, layer in layers.items():
            start = time.perf_counter()
            step(layer, x)
            seconds[members].append(time.perf_counter() - start)
    return {members: statistics.median(runs) for members, runs in seconds.items()}


def main() -> None:
    """Print the table."""
    options = build_parser().parse_args()
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    width = options.width
    layers: dict[int, nn.Module] = {1: nn.Linear(width, width)}
    for members in options.members:
        if width % members == 0:
            layers[members] = BlockDiagonalLinear(width, width, members)
    x = torch.randn(options.batch, width)
    ahead = medians(layers, x, forward, options.repeats)
    back = medians(layers, x, train, options.repeats)
    print(
        f"width {width}, batch {options.batch}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; dense: forward {ahead[1] * 1e3:.2f} ms, "
        f"with backward {back[1] * 1e3:.2f} ms"
    )
    print(
        f"{'members':>8} {'ideal':>7} {'forward':>8} {'of ideal':>9} "
        f"{'+backward':>10} {'of ideal':>9}"
    )
    for members in list(layers)[1:]:
        one, two = ahead[members] / ahead[1], back[members] / back[1]
        print(
            f"{members:>8} {1 / members:>7.3f} {one:>8.3f} {one * members:>9.2f} "
            f"{two:>10.3f} {two * members:>9.2f}"
        )


if __name__ == "__main__":
    main()
