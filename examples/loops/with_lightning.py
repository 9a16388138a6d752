"""Lightning: the rewritten model is a module like any other.

    python -m examples.loops.with_lightning

Needs lightning.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn

from examples.loops.task import accuracy, rewritten
from examples.members.with_lightning import fit


class Task(lightning.LightningModule):
    """A classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of one batch."""
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on all parameters."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(epochs: int = 5) -> float:
    """Convert and train; returns the accuracy."""
    model, digits = rewritten()
    fit(Task(model), digits, epochs)
    found = accuracy(model, digits.test_x, digits.test_y)
    print(f"accuracy: {found:.3f}")
    return found


if __name__ == "__main__":
    main()
