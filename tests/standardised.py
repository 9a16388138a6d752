"""Convolutions that standardise their weight, as people write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normed(nn.Conv2d):
    """By a batch norm in training mode, as timm's StdConv2d."""

    def __init__(self, n_in: int, n_out: int, kernel: int, groups: int = 1, padding: int = 0,
                 bias: bool = True, eps: float = 1e-6) -> None:  # fmt: skip
        super().__init__(n_in, n_out, kernel, padding=padding, groups=groups, bias=bias)
        self.eps = eps

    def standardised(self, scale: Tensor | None) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        normed = F.batch_norm(
            rows, None, None, weight=scale, training=True, momentum=0.0, eps=self.eps
        )
        return normed.reshape_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.standardised(None)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)


class Scaled(Normed):
    """With a number from the fan-in and a gain per filter, as timm's ScaledStdConv2d."""

    def __init__(self, n_in: int, n_out: int, kernel: int, groups: int = 1, padding: int = 0,
                 gamma: float = 1.0, gain: float = 1.0) -> None:  # fmt: skip
        super().__init__(n_in, n_out, kernel, groups, padding)
        self.scale = gamma * self.weight[0].numel() ** -0.5
        self.gain = nn.Parameter(torch.full((n_out, 1, 1, 1), gain))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.standardised((self.gain * self.scale).view(-1))
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)


class ByHand(nn.Conv2d):
    """Mean by mean, over the unbiased deviation, as the paper's own code."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(1, keepdim=True).mean(2, keepdim=True).mean(3, keepdim=True)
        weight = self.weight - mean
        deviation = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return self._conv_forward(x, weight / deviation.expand_as(weight), self.bias)


class InForward(nn.Conv1d):
    """One dimension; the number is computed in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2], keepdim=True, correction=0)
        fan_in = self.weight[0].numel()
        weight = (self.weight - mean) * torch.rsqrt(variance * fan_in + 1e-8)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)


class Set(Scaled):
    """The number is put there from outside, the constructor knows none."""

    def __init__(self, n_in: int, n_out: int, kernel: int, groups: int = 1, padding: int = 0,
                 *, level: float) -> None:  # fmt: skip
        super().__init__(n_in, n_out, kernel, groups, padding)
        self.scale = level


class Whole(nn.Conv2d):
    """Over the whole weight: filters are not standardised one by one."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return self._conv_forward(x, weight, self.bias)


class Uncentred(nn.Conv2d):
    """Of unit length, the mean left in."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, F.normalize(self.weight.flatten(1)).view_as(self.weight), None)


class PerKernel(nn.Conv2d):
    """Every kernel of a filter by itself."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.layer_norm(self.weight, self.weight.shape[2:])
        return self._conv_forward(x, weight, self.bias)
