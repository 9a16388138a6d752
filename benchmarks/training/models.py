"""The baselines: plain modules with He-Gaussian weights, zero biases, read-outs of gain 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def initialise(model: nn.Module, readout: nn.Module) -> nn.Module:
    """Draw every linear and conv layer from the global generator; returns the model."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            gain = 1.0 if module is readout else 2.0
            nn.init.normal_(module.weight, 0.0, (gain / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def mlp(inputs: int, depth: int, width: int, outputs: int) -> nn.Module:
    """A ReLU chain of ``depth`` hidden layers."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(inputs if index == 0 else width, width), nn.ReLU()]
    readout = nn.Linear(width, outputs)
    return initialise(nn.Sequential(*layers, readout), readout)


def plain_cnn(channels: int, depth: int, width: int, outputs: int, *, norm: bool) -> nn.Module:
    """``depth`` 3x3 convolutions of ``width`` channels, average over positions, read-out.

    The first convolution has a stride of 2.

    Args:
        channels: input channels.
        depth: convolutions, at least 2.
        width: channels of each.
        outputs: outputs of the read-out.
        norm: whether each convolution has a batch norm.
    """
    layers: list[nn.Module] = []
    for index in range(depth):
        inputs = channels if index == 0 else width
        stride = 2 if index == 0 else 1
        layers.append(nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU())
    readout = nn.Linear(width, outputs)
    return initialise(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout), readout
    )


class Bottleneck(nn.Module):
    """``x + conv1x1(conv3x3(conv1x1(x)))`` with a batch norm after each, ReLU after the sum."""

    def __init__(self, stream: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(stream, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, stream, 1, bias=False),
            nn.BatchNorm2d(stream),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, stream, rows, columns]``, shape kept."""
        return torch.relu(x + self.body(x))


def residual_cnn(channels: int, blocks: int, stream: int, width: int, outputs: int) -> nn.Module:
    """A 3x3 stem of stride 2, ``blocks`` bottlenecks, average over positions, read-out."""
    readout = nn.Linear(stream, outputs)
    stem = nn.Conv2d(channels, stream, 3, stride=2, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(stream), nn.ReLU()]
    layers += [Bottleneck(stream, width) for _ in range(blocks)]
    return initialise(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout), readout
    )
