"""Networks whose blocks have one hidden layer: what each scope gains at equal budget.

    python -m benchmarks.scopes [--models resnet18 mobilenet_v2 convnext_tiny] [--pixels 64]

Every plan is applied and verified (signature, params and FLOPs counted on the built model,
membership in float64, gradients). Nu is the closed form's; ConvNeXt is analysed with --gain he,
because its layer scales start at 1e-6 and leave its blocks no share of the kernel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.zoo import torchvision_models
from cerewrite import ir

GAIN = {"convnext_tiny": "he"}
BUDGETS = (("params",), ("params", "flops"))


@dataclass(frozen=True)
class Row:
    """One model at one scope under one request."""

    model: str
    scope: str
    budget: str
    plan: ir.Plan | None
    checks: ir.Verification | None
    seconds: float
    refused: str = ""

    def line(self) -> str:
        """The row of the table."""
        head = f"{self.model:14} {self.scope:8} {self.budget:13}"
        if self.plan is None or self.checks is None:
            return f"{head} refused: {self.refused}"
        old, new = self.plan.baseline, self.plan.planned
        worst = next(check.value for check in self.checks.checks if check.name == "membership")
        return (
            f"{head} {len(self.plan.splits):7} {old.params / 1e6:7.2f} -> {new.params / 1e6:6.2f} M"
            f" {old.flops / 1e6:8.1f} -> {new.flops / 1e6:7.1f} M"
            f" {old.nu:8.4f} -> {new.nu:.4f} ({new.nu / old.nu:.2f}x)"
            f"  {'all pass' if self.checks.passed else 'FAIL'}, {worst:.0e} {self.seconds:6.1f} s"
        )


def rows(name: str, pixels: int, scopes: tuple[str, ...]) -> Iterator[Row]:
    """Every scope and request of one torchvision model; planning in CPU seconds."""
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision_models(), name)(weights=None)
    inputs: tuple[Tensor] = (torch.randn(2, 3, pixels, pixels),)
    analysis = cerewrite.analyze(
        model, inputs, scope="auto", gain=GAIN.get(name, "as-built"), estimator="analytic"
    )
    for budget in BUDGETS:
        for scope in scopes:
            start = time.process_time()
            try:
                plan = cerewrite.plan(
                    analysis, scope=scope, budget=budget, allow="all", widths="free"
                )
            except cerewrite.PlanError as error:
                yield Row(name, scope, ",".join(budget), None, None, 0.0, error.message[:90])
                continue
            seconds = time.process_time() - start
            checks = cerewrite.verify(model, cerewrite.apply(plan, model), plan, inputs)
            yield Row(name, scope, ",".join(budget), plan, checks, seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", nargs="+", default=["resnet18", "mobilenet_v2", "convnext_tiny"]
    )
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--scopes", nargs="+", default=["block", "stage", "network"])
    options = parser.parse_args()
    print(
        f"{'model':14} {'scope':8} {'budget':13} {'regions':>7} {'params':>19} {'FLOPs':>21} "
        f"{'nu':>26}  checks, membership, planning (CPU)"
    )
    for name in options.models:
        for row in rows(name, options.pixels, tuple(options.scopes)):
            print(row.line(), flush=True)


if __name__ == "__main__":
    main()
