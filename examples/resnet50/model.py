"""ResNet-50 (He et al., 2015), bottleneck blocks, stride in the 3x3 convolution.

    cerewrite convert examples/resnet50/model.py --budget params --onnx --out build/resnet50

Written out in full; parameters have the names and shapes of torchvision's ``resnet50``, so its
checkpoints load. The two hidden widths of every block are a region of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """``relu(x + expand(relu(spatial(relu(reduce(x))))))``, each convolution with batch norm.

    Args:
        channels_in: channels of the input.
        width: channels of the two hidden maps.
        channels_out: channels of the output.
        stride: stride of the 3x3 convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, width: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, h, w]`` to ``[batch, channels_out, h / stride, w / stride]``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        summed: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return summed


def stage(channels_in: int, width: int, channels_out: int, blocks: int, stride: int) -> nn.Module:
    """Blocks of one resolution; the first changes the channels and takes the stride."""
    first = Bottleneck(channels_in, width, channels_out, stride)
    rest = [Bottleneck(channels_out, width, channels_out, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class ResNet50(nn.Module):
    """Stem, four stages of 3, 4, 6 and 3 bottlenecks, average pool, classifier.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(64, 64, 256, blocks=3, stride=1)
        self.layer2 = stage(256, 128, 512, blocks=4, stride=2)
        self.layer3 = stage(512, 256, 1024, blocks=6, stride=2)
        self.layer4 = stage(1024, 512, 2048, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``[batch, classes]`` of images ``[batch, 3, h, w]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def build_model() -> nn.Module:
    """The network for ImageNet's thousand classes: 25,557,032 parameters."""
    return ResNet50(classes=1000)


def example_inputs() -> tuple[Tensor]:
    """Two images of about zero mean and unit variance: ``[2, 3, 64, 64]``."""
    return (torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),)
