"""Members trained on their own losses with Lightning: the ten lines of `Task`.

    python -m examples.members.with_lightning

Needs lightning and scikit-learn.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cerewrite
from examples.members.plain_loop import build_model
from examples.train_digits import Digits, load_data


class Task(lightning.LightningModule):
    """A classifier of members; Lightning moves, trains and saves the model's own parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.asked = cerewrite.members(model)
        self.criterion = cerewrite.MemberLoss(nn.CrossEntropyLoss(), share=0.5)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of one batch."""
        return self.criterion(self.asked(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on all parameters."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def fit(task: lightning.LightningModule, digits: Digits, epochs: int) -> None:
    """Train on the digits, quietly."""
    loader = DataLoader(TensorDataset(digits.x, digits.y), batch_size=64, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, loader)


def main(epochs: int = 20) -> float:
    """Convert and train; returns the accuracy of the members' mean."""
    digits = load_data()
    lightning.seed_everything(0, verbose=False)
    model = cerewrite.convert(build_model(), digits.x[:2], members=4).model
    fit(Task(model), digits, epochs)
    right = model.eval()(digits.test_x).argmax(-1) == digits.test_y
    print(f"accuracy: {right.double().mean():.3f}")
    return float(right.double().mean())


if __name__ == "__main__":
    main()
