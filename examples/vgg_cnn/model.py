"""A plain VGG-like convolutional network with batch norm for 32x32 colour images.

    cerewrite convert examples/vgg_cnn/model.py --budget params --out build/vgg

No skip connections: the convolutions and the classifier are one long chain of widths. The
classifier reads the flattened 4x4 maps, so each of its inputs belongs to a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3x3 convolution that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class PlainCNN(nn.Module):
    """Three stages of two or three convolutions, then a classifier with two hidden layers.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_block(3, 64),
            conv_block(64, 64),
            nn.MaxPool2d(2),
            conv_block(64, 128),
            conv_block(128, 128),
            nn.MaxPool2d(2),
            conv_block(128, 256),
            conv_block(256, 256),
            conv_block(256, 256),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 4 * 4, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``[batch, classes]`` of images ``[batch, 3, 32, 32]``."""
        scores: Tensor = self.classifier(torch.flatten(self.features(images), 1))
        return scores


def build_model() -> nn.Module:
    """The network for ten classes: 4,102,090 parameters."""
    return PlainCNN(classes=10)


def example_inputs() -> tuple[Tensor]:
    """Two images of about zero mean and unit variance: ``[2, 3, 32, 32]``."""
    return (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)
