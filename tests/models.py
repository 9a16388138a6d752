"""Small networks that several tests share; each isolates one thing the tracer must see."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def chain(
    widths: list[int],
    *,
    activation: type[nn.Module] = nn.ReLU,
    bias: bool = False,
    inputs: int = 7,
    outputs: int = 1,
) -> nn.Sequential:
    """A plain MLP with the given hidden widths."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=bias), activation()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs, bias=bias))


class Bottleneck(nn.Module):
    """A residual block with two hidden widths, as in ResNet-50."""

    def __init__(self, channels: int, width: int, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (x + self.bn3(self.conv3(y))).relu()


class ResidualNet(nn.Module):
    """Stem, bottlenecks, head."""

    def __init__(
        self, channels: int = 16, width: int = 8, blocks: int = 2, groups: int = 1
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Bottleneck(channels, width, groups) for _ in range(blocks)))
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.stem(x).relu())
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


def plain_cnn() -> nn.Sequential:
    """Convolutions, pools, a flatten, linears: the class passes through the flatten."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.PReLU(8),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.GroupNorm(3, 12),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(48, 20),
        nn.LayerNorm(20),
        nn.SiLU(),
        nn.Linear(20, 4),
    )


class Basic(nn.Module):
    """A residual block with one hidden width, as in ResNet-18; strided, it has a projection."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.down(x) + self.bn2(self.conv2(y))).relu()


class Inverted(nn.Module):
    """A residual block with one hidden width and a depthwise layer, as in MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, width, 1, bias=False)
        self.deep = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, outputs, 1)
        self.sums = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(nn.functional.relu6(self.norm(self.deep(self.expand(x)))))
        return x + y if self.sums else y


class StagedNet(nn.Module):
    """Stem, two stages of blocks with one hidden width, head: nothing to split at block scope."""

    def __init__(self, block: type[nn.Module] = Basic, channels: tuple[int, int] = (8, 12)) -> None:
        super().__init__()
        first, second = channels
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first))
        self.stage1 = nn.Sequential(block(first, first, 10), block(first, first, 10))
        self.stage2 = nn.Sequential(block(first, second, 14, 2), block(second, second, 14))
        self.head = nn.Linear(second, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stage2(self.stage1(self.stem(x).relu()))
        return self.head(y.mean((2, 3)))


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of images, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ScaledBlock(nn.Module):
    """A ConvNeXt block: depthwise, norm and linears on the last axis, a layer scale."""

    def __init__(self, channels: int, width: int, scale: float = 1e-6, flat: bool = False) -> None:
        super().__init__()
        self.deep = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, width)
        self.down = nn.Linear(width, channels)
        self.flat = flat
        shape = (channels,) if flat else (channels, 1, 1)
        self.scale = nn.Parameter(scale * torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.down(nn.functional.gelu(self.up(y))).permute(0, 3, 1, 2)
        return x + y * (self.scale.reshape(1, -1, 1, 1) if self.flat else self.scale)


class ScaledNet(nn.Module):
    """Stem, norm, ConvNeXt blocks, head."""

    def __init__(self, channels: int = 12, width: int = 24, flat: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 2, 2)
        self.norm = ChannelNorm(channels)
        self.blocks = nn.Sequential(*(ScaledBlock(channels, width, flat=flat) for _ in range(2)))
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.norm(self.stem(x))).mean((2, 3)))
