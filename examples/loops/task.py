"""What the loops train: an MLP on scikit-learn's digits that has been rewritten."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import cerewrite
from examples.members.plain_loop import build_model
from examples.train_digits import Digits, load_data


def rewritten(seed: int = 0) -> tuple[nn.Module, Digits]:
    """The rewritten model and its data; the same weights from the same seed in every process."""
    digits = load_data()
    torch.manual_seed(seed)
    found = cerewrite.convert(
        build_model(), digits.x[:2], estimator="analytic", allow="all", min_width=16, seed=seed
    )
    return found.model, digits


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images that are classified rightly."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(-1) == y).double().mean())
