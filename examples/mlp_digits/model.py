"""A wide multilayer perceptron for scikit-learn's digits (8x8 grey images, ten classes).

    cerewrite convert examples/mlp_digits/model.py --budget params --out build/mlp

The four hidden layers are one region: a chain of widths that a split turns into members, joined
by block-diagonal linears.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build_model() -> nn.Module:
    """64 -> 512 -> 512 -> 512 -> 512 -> 10, with ReLU: 826,378 parameters."""
    return nn.Sequential(
        nn.Linear(64, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def example_inputs() -> tuple[Tensor]:
    """Two flattened images, pixels of about zero mean and unit variance: ``[2, 64]``."""
    return (torch.randn(2, 64, generator=torch.Generator().manual_seed(0)),)
