"""Members trained on their own losses with the Trainer of Hugging Face: the ten lines of `train`.

    python -m examples.members.with_trainer

Needs transformers, accelerate and scikit-learn.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

import cerewrite
from examples.members.plain_loop import build_model
from examples.train_digits import load_data


class Classifier(nn.Module):
    """A model as the Trainer wants it: keywords in, a dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = build_model()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits ``[batch, 10]``."""
        return {"logits": self.layers(pixels)}


class Rows(Dataset[dict[str, Tensor]]):
    """Images and labels, one dictionary each."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.x[index], "labels": self.y[index]}


def cross_entropy(output: dict[str, Tensor], labels: Tensor, **further: Any) -> Tensor:
    """The loss of one output; the Trainer's own keywords are not needed."""
    return nn.functional.cross_entropy(output["logits"], labels)


def train(model: nn.Module, data: Dataset[dict[str, Tensor]], epochs: int, folder: str) -> None:
    """Train a model that `cerewrite.convert` made with ``members=4``."""
    arguments = TrainingArguments(
        folder, num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=1e-3,
        lr_scheduler_type="constant", remove_unused_columns=False, label_names=["labels"],
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    loss = cerewrite.MemberLoss(cross_entropy, share=0.5)
    trainer = Trainer(
        cerewrite.members(model), arguments, train_dataset=data, compute_loss_func=loss
    )
    trainer.train()


def main(epochs: int = 20) -> float:
    """Convert and train; returns the accuracy of the members' mean."""
    digits = load_data()
    set_seed(0)
    model = cerewrite.convert(Classifier(), {"pixels": digits.x[:2]}, members=4).model
    with tempfile.TemporaryDirectory() as folder:
        train(model, Rows(digits.x, digits.y), epochs, folder)
    with torch.no_grad():
        right = model.eval()(digits.test_x)["logits"].argmax(-1) == digits.test_y
    print(f"accuracy: {right.double().mean():.3f}")
    return float(right.double().mean())


if __name__ == "__main__":
    main()
