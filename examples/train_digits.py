"""From a `model.py` to a trained, exported ensemble on scikit-learn's digits.

    python examples/train_digits.py [--epochs 8] [--seed 0] [--out build/digits]

The baseline is `examples/mlp_digits/model.py`. cerewrite turns it into an ensemble of the same
parameter budget, both are trained in the same way on the same batches, and the trained ensemble
is exported to ONNX and proven in ONNX Runtime. One run with one learning rate shows how it is
done; what to expect from it is in docs/TRAINING.md.

Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cerewrite

MODEL = Path(__file__).parent / "mlp_digits" / "model.py"
BATCH = 64
RATE = 1e-3


@dataclass(frozen=True)
class Digits:
    """Standardised 8x8 images, flattened to ``[images, 64]``, and their labels ``[images]``."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_data() -> Digits:
    """1437 training and 360 test images."""
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x, y = (x - x.mean()) / x.std(), torch.tensor(bunch.target, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    return Digits(x[train], y[train], x[test], y[test])


def train_epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, digits: Digits, seed: int
) -> float:
    """One pass over the training images in the order of ``seed``; returns the mean batch loss."""
    model.train()
    order = torch.randperm(len(digits.x), generator=torch.Generator().manual_seed(seed))
    losses = []
    for batch in order.split(BATCH):
        loss = nn.functional.cross_entropy(model(digits.x[batch]), digits.y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return math.fsum(losses) / len(losses)


def accuracy(model: nn.Module, digits: Digits) -> float:
    """Share of the test images that are classified rightly."""
    model.eval()
    with torch.no_grad():
        return float((model(digits.test_x).argmax(1) == digits.test_y).double().mean())


def main(arguments: list[str] | None = None) -> None:
    """Convert, train both, export, print."""
    parser = argparse.ArgumentParser(description="train a baseline and its ensemble on digits")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/digits"))
    options = parser.parse_args(arguments)

    digits = load_data()
    torch.manual_seed(options.seed)
    baseline = cerewrite.build(str(MODEL))
    result = cerewrite.convert(
        baseline,
        digits.x[:2],
        budget="params",
        allow="all",  # else members that keep training's memory and time use fewer parameters
        min_width=16,
        channel_multiple=8,
        seed=options.seed,
    )
    for split in result.plan.splits:
        print(f"region '{split.region}': {split.multiplicity} members of widths {split.widths}")
    models = {"baseline": baseline, "ensemble": result.model}
    optimisers = {
        name: torch.optim.Adam(model.parameters(), lr=RATE) for name, model in models.items()
    }
    before, after = result.plan.baseline, result.plan.planned
    print(f"parameters    {before.params:>18,} {after.params:>20,}")
    print(f"epoch         {'baseline':>18} {'ensemble':>20}    (training loss, test accuracy)")
    for epoch in range(1, options.epochs + 1):
        cells = []
        for name, model in models.items():
            loss = train_epoch(model, optimisers[name], digits, 1000 * options.seed + epoch)
            cells.append(f"{loss:9.4f} {accuracy(model, digits):9.4f}")
        print(f"{epoch:<13} {cells[0]:>18} {cells[1]:>20}", flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "digits.onnx"
    export = cerewrite.export_onnx(result.model.eval(), path, digits.test_x[:2])
    worst = max(record.relative_error for record in export.parity)
    print(f"{path}: {export.nodes} nodes, differs from PyTorch by at most {worst:.1e}")


if __name__ == "__main__":
    main()
