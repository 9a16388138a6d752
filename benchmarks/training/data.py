"""The data sets: digits, a teacher's outputs, synthetic textures. All fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

CLASSES = 10
TEXTURES = 8
SIDE = 8


@dataclass(frozen=True)
class Data:
    """A training set and a test set.

    Attributes:
        x, y: training inputs ``[examples, ...]`` and targets: class indices, or real vectors.
        test_x, test_y: the same, held out.
        chance: training loss of the best constant prediction.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    chance: float


def _split(x: Tensor, y: Tensor, held_out: int, chance: float) -> Data:
    """A fixed random split."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:held_out], order[held_out:]
    return Data(x[train], y[train], x[test], y[test], chance)


@cache
def digits(images: bool = False) -> Data:
    """scikit-learn's digits: 1437 training and 360 test images of 8x8, pixels standardised.

    Args:
        images: as ``[examples, 1, 8, 8]`` instead of ``[examples, 64]``.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    y = torch.tensor(bunch.target, dtype=torch.long)
    if images:
        x = x.view(-1, 1, SIDE, SIDE)
    return _split(x, y, 360, float(torch.log(torch.tensor(float(CLASSES)))))


@cache
def teacher() -> Data:
    """4096 + 1024 Gaussian inputs of 24 dimensions and a random ReLU network's 4 outputs.

    The teacher has three hidden layers of 64; its outputs are standardised, so a constant has
    a loss of 1.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5120, 24, generator=generator)
    h, inputs = x, 24
    for width in (64, 64, 64):
        h = torch.relu(h @ torch.randn(inputs, width, generator=generator) * (2 / inputs) ** 0.5)
        inputs = width
    y = h @ torch.randn(inputs, 4, generator=generator)
    return _split(x, (y - y.mean(0)) / y.std(0), 1024, 1.0)


@cache
def textures() -> Data:
    """4096 + 1024 images ``[3, 8, 8]`` in 8 classes that differ in spatial correlations only.

    Each class filters white noise with 3 random 3x3 filters of its own (circular, 3 noise
    channels); every image is standardised and gets white noise of a quarter of its variance.
    No pixel's mean or variance tells the class: products of neighbours do.
    """
    generator = torch.Generator().manual_seed(2)
    count = 5120
    y = torch.randint(TEXTURES, (count,), generator=generator)
    noise = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    noise = nn.functional.pad(noise, (1, 1, 1, 1), mode="circular")
    filters = torch.randn(TEXTURES, 3, 3, 3, 3, generator=generator)
    every = torch.stack([nn.functional.conv2d(noise, f) for f in filters], 1)
    x = every[torch.arange(count), y]
    x = x / x.flatten(2).std(2)[..., None, None]
    x = x + 0.5 * torch.randn(x.shape, generator=generator)
    return _split(x, y, 1024, float(torch.log(torch.tensor(float(TEXTURES)))))
