"""A network with a module of its own, and the rule that lets cerewrite split it.

    cerewrite convert examples/custom_operator/model.py --budget params --out build/custom

`ChannelGain` scales every channel by the exponential of a learned number. Without `Gain` below,
its 64 numbers tie the hidden width to 64, and `cerewrite explain` says so. The rule says what the
module does to channels, to the two moments of the closed form, and what becomes of it at another
width. A package installs its rules through the entry-point group `cerewrite.operators`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.ops.base import ModuleRule, register
from cerewrite.ops.resizing import part


class ChannelGain(nn.Module):
    """``y = exp(w) x``, one learned w per feature of the last axis."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Scale every feature."""
        return x * self.weight.exp()


@register
class Gain(ModuleRule):
    """Each channel by itself; mean square and kernel are multiplied by the gain's mean square."""

    name, targets = "channel_gain", frozenset({"channel_gain"})
    whole = modules = (ChannelGain,)

    def channels(self, op, inputs, widths):  # noqa: ANN001, ANN201
        """The channel axis stays; the module is resized with its class."""
        if inputs[0].channels is not None:
            widths.per_channel(op, self, inputs[0].channels)
        return inputs[0].channels

    def moments(self, op, inputs, context):  # noqa: ANN001, ANN201
        """Both are multiplied by the gains' mean square; w is given no kernel of its own."""
        square = context.module(op).weight.exp().square().mean().item()
        return context.scale(inputs[0], square)

    def resize(self, module, multiplicity, width):  # noqa: ANN001, ANN201
        """All members' channels, at the mean gain."""
        return like(module, module.weight.mean().expand(multiplicity * width))

    def member(self, module, index, multiplicity):  # noqa: ANN001, ANN201
        """One member's own gains."""
        return like(module, module.weight[part(index, len(module.weight) // multiplicity)])


def like(module: nn.Module, weight: Tensor) -> nn.Module:
    """A gain with other factors, on the same device and in the same mode."""
    new = ChannelGain(len(weight))
    new.weight = nn.Parameter(weight.detach().clone())
    return new.train(module.training)


def build_model() -> nn.Module:
    """A chain of four linears with gains between them: 14,275 parameters."""
    layers: list[nn.Module] = []
    inputs = 20
    for _ in range(4):
        layers += [nn.Linear(inputs, 64), ChannelGain(64), nn.ReLU()]
        inputs = 64
    return nn.Sequential(*layers, nn.Linear(64, 3))


def example_inputs() -> tuple[Tensor]:
    """Two examples of 20 features."""
    return (torch.randn(2, 20, generator=torch.Generator().manual_seed(0)),)
