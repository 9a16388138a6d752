"""Convert real models both ways and print what was planned, counted and verified.

    python -m benchmarks.conversion [NAME ...]

One row per model and objective: parameters and nu over the baseline's, counted on the built
model; the worst error of the membership check (float64) and of ONNX Runtime (float32).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

import cerewrite
from benchmarks.zoo import everything


def main(names: list[str]) -> int:
    """Print the table; the exit code counts rows that miss a figure."""
    models = everything()
    print(f"{'model':16} {'objective':9} {'params':>12} {'ratio':>8} {'nu':>9} {'nu after':>9} "
          f"{'membership':>10} {'ONNX':>8} {'seconds':>8}")  # fmt: skip
    missed = 0
    for name in names or list(models):
        torch.manual_seed(0)
        try:
            model, inputs = models[name]()
        except ImportError as error:
            print(f"{name:16} skipped: {error}")
            continue
        for objective in ("primal", "dual"):
            missed += not row(name, model, inputs, objective)
    return missed


def row(
    name: str, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], objective: str
) -> bool:
    """Convert, export, print; whether every figure is within its bound."""
    start = time.perf_counter()
    result = cerewrite.convert(
        model,
        inputs,
        budget="params",
        objective=objective,
        estimator="analytic",
        allow="all",
        widths="free",
    )
    with tempfile.TemporaryDirectory() as folder:
        export = cerewrite.export_onnx(result.model, Path(folder) / "model.onnx", inputs)
    seconds = time.perf_counter() - start
    before, after = result.plan.baseline, result.plan.planned
    counted = sum(parameter.numel() for parameter in result.model.parameters())
    membership = next(c.value for c in result.verification.checks if c.name == "membership")
    parity = max(p.relative_error for p in export.parity)
    ratio = counted / before.params
    print(f"{name:16} {objective:9} {counted:12,} {ratio:8.5f} {before.log_variance:9.5f} "
          f"{after.log_variance:9.5f} "
          f"{membership:10.1e} {parity:8.1e} {seconds:8.1f}", flush=True)  # fmt: skip
    gains = 0.99 <= ratio <= 1 and after.log_variance < before.log_variance
    if objective == "dual":
        gains = ratio < 1 and after.log_variance <= before.log_variance
    return gains and result.verification.passed and membership <= 1e-10 and parity <= 1e-5


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
