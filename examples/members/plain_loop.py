"""Members trained on their own losses, in a plain loop: the ten lines of `train`.

    python -m examples.members.plain_loop

Digits, four members in the place of one MLP, at most its parameters and FLOPs. Needs scikit-learn.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

import cerewrite
from examples.train_digits import load_data


def build_model() -> nn.Module:
    """64 -> 4 x 128 -> 10, with ReLU."""
    sizes = (64, 128, 128, 128, 128)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 20) -> None:
    """Train a model that `cerewrite.convert` made with ``members=4``."""
    asked = cerewrite.members(model)
    criterion = cerewrite.MemberLoss(nn.CrossEntropyLoss(), share=0.5)
    optimiser = torch.optim.Adam(asked.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            loss = criterion(asked(x[batch]), y[batch])
            loss.backward()
            optimiser.step()


def main(epochs: int = 20) -> tuple[float, float]:
    """Convert, train, and compare the mean with one member alone; returns both accuracies."""
    digits = load_data()
    torch.manual_seed(0)
    model = cerewrite.convert(build_model(), digits.x[:2], members=4).model
    train(model, digits.x, digits.y, epochs)
    outputs = cerewrite.members(model.eval())(digits.test_x)
    alone = float((outputs[0].argmax(-1) == digits.test_y).double().mean())
    together = float((outputs.mean(0).argmax(-1) == digits.test_y).double().mean())
    print(f"accuracy: one member {alone:.3f}, their mean {together:.3f}")
    return alone, together


if __name__ == "__main__":
    main()
