"""timm's training script: the rewritten model under a name that `create_model` knows.

    python -m examples.loops.with_timm

`python train.py --model rewritten_mlp` of timm's repository finds the model in the same way, once
this file is imported there. Optimiser and scheduler are made as that script makes them. Needs timm.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import create_model, register_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from examples.loops.task import accuracy, rewritten


@register_model
def rewritten_mlp(pretrained: bool = False, **further: Any) -> nn.Module:
    """What `cerewrite.convert` made; a folder's own ``build_model`` stands here as well."""
    return rewritten()[0]


def main(epochs: int = 5) -> float:
    """Train in the form of timm's script; returns the accuracy."""
    model, digits = create_model("rewritten_mlp"), rewritten()[1]
    optimiser = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.01)
    scheduler, epochs = create_scheduler_v2(optimiser, sched="cosine", num_epochs=epochs)
    for epoch in range(epochs):
        model.train()
        for batch in torch.randperm(len(digits.x)).split(64):
            loss = nn.functional.cross_entropy(model(digits.x[batch]), digits.y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scheduler.step(epoch + 1)
    found = accuracy(model, digits.test_x, digits.test_y)
    print(f"accuracy: {found:.3f}")
    return found


if __name__ == "__main__":
    main()
