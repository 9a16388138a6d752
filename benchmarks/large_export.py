"""A model over 2 GB: export it, run it in ONNX Runtime, print the peak memory over its size.

    python -m benchmarks.large_export [GIGABYTES]

Builds a stack of dense and block-diagonal linears of random float32 weights (2.4 GB by default;
needs about three times that in memory), exports it with parity at batch 1 and 2, which runs it in
ONNX Runtime beside PyTorch, and prints the peak resident memory of the whole process and of the
export alone, both over the model's size. The exit code says whether the peak stays within 3.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import cerewrite
from cerewrite.nn import BlockDiagonalLinear

WIDTH, MEMBERS, LIMIT = 8192, 4, 3.0


def build(size: float) -> nn.Sequential:
    """Dense entry and exit, block-diagonal layers between, at least ``size`` bytes."""
    dense = [nn.Linear(WIDTH, WIDTH) for _ in range(int(0.8 * size / (4 * WIDTH**2)))]
    layers: list[nn.Module] = [layer for linear in dense for layer in (linear, nn.ReLU())]
    while sum(p.numel() for layer in layers for p in layer.parameters()) * 4 < size:
        layers += [BlockDiagonalLinear(WIDTH, WIDTH, MEMBERS), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def peak() -> float:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main(gigabytes: float) -> int:
    """Print the figures; 0 if the peak stays within `LIMIT` sizes of the model."""
    torch.manual_seed(0)
    before = peak()
    model = build(gigabytes * 1e9)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    built = peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.onnx")
        export = cerewrite.export_onnx(model, path, torch.randn(2, WIDTH), batches=(1, 2))
        files = {file.name: file.stat().st_size for file in Path(folder).iterdir()}
    worst = max(item.relative_error for item in export.parity)
    print(f"model          {size / 1e9:.2f} GB, files {files}")
    print(f"interpreter    {before / 1e9:.2f} GB, model built {built / 1e9:.2f} GB")
    print(f"peak           {peak() / 1e9:.2f} GB = {peak() / size:.2f} x the model")
    print(f"parity         {worst:.1e} at batch 1 and 2")
    return int(peak() > LIMIT * size)


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]) if sys.argv[1:] else 2.4))
