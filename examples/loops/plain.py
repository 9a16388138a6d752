"""A plain loop, with torch.compile and autocast, and a checkpoint without pickle's dangers.

python -m examples.loops.plain
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from examples.loops.task import accuracy, rewritten


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, *, half: bool = False) -> None:
    """Train; with ``half`` under autocast to bfloat16. The model may be compiled."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimiser.step()


def main(epochs: int = 5, *, half: bool = False, backend: str | None = None) -> float:
    """Convert, train, save, load; returns the accuracy of what was loaded."""
    model, digits = rewritten()
    subject = model if backend is None else torch.compile(model, backend=backend)
    train(subject, digits.x, digits.y, epochs, half=half)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "model.pt")
        fresh, _ = rewritten(seed=1)
        fresh.load_state_dict(torch.load(Path(folder) / "model.pt", weights_only=True))
    found = accuracy(fresh, digits.test_x, digits.test_y)
    print(f"accuracy: {found:.3f}")
    return found


if __name__ == "__main__":
    main()
