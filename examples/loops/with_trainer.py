"""The Trainer of Hugging Face: convert the model before it is given to it.

    python -m examples.loops.with_trainer

Needs transformers and accelerate.
"""

from __future__ import annotations

import tempfile

from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from examples.loops.task import accuracy, rewritten
from examples.members.with_trainer import Rows


class Classifier(nn.Module):
    """A model as the Trainer wants it: keywords in, a dictionary with the loss out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and logits ``[batch, 10]``."""
        logits = self.model(pixels)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main(epochs: int = 5) -> float:
    """Convert and train; returns the accuracy."""
    model, digits = rewritten()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=1e-3,
            lr_scheduler_type="constant",
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        Trainer(Classifier(model), arguments, train_dataset=Rows(digits.x, digits.y)).train()
    found = accuracy(model, digits.test_x, digits.test_y)
    print(f"accuracy: {found:.3f}")
    return found


if __name__ == "__main__":
    main()
