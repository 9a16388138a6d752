"""Networks with modules of their own, and the rules that let cerewrite split them.

    cerewrite convert examples/custom_operator/model.py --budget params --out build/custom
    cerewrite convert examples/custom_operator/model.py:build_waves --budget params --out build

`ChannelGain` scales every channel by the exponential of a learned number. `Gain` below makes it
one operator: the rule says what the module does to channels, to the two moments of the closed
form, and what becomes of it at another width. A package installs its rules through the
entry-point group `cerewrite.operators`.

`WaveLinear` is a layer with weights of its own, and `Wave` its rule: also how one layer becomes a
block for every member, and what of it autograd keeps. Without it the widths are kept, and
`cerewrite explain` says so. Nothing else has to know either of them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cerewrite.kernel.values import concatenate
from cerewrite.ops.base import Channels, LayerRule, ModuleRule, Saved, Value, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import bound
from cerewrite.ops.modules import Geometry
from cerewrite.ops.own_forwards import expect
from cerewrite.ops.resizing import empty_like, ensemble_sizes, part


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
    axis = -1
    keeps = Saved(reads=True)
    cases = (module_case(lambda: ChannelGain(4), (3, 4)),)

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
    new.weight = nn.Parameter(weight.detach().clone(), module.weight.requires_grad)
    return new.train(module.training)


class WaveLinear(nn.Module):
    """``y_o = b_o + sum_i (u_oi cos x_i + v_oi sin x_i)`` over the last axis.

    Args:
        inputs: features read.
        outputs: features written.
        blocks: each reads features of its own and writes features of its own.
        options: ``dtype`` and ``device`` of the parameters.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int = 1, **options: object) -> None:
        super().__init__()
        self.blocks = blocks
        self.weight = nn.Parameter(torch.randn(outputs, inputs // blocks, 2, **options))
        self.weight.data *= (blocks / inputs) ** 0.5
        self.bias = nn.Parameter(torch.zeros(outputs, **options))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        waves = torch.stack([x.cos(), x.sin()], -1).unflatten(-2, (self.blocks, -1))
        weight = self.weight.unflatten(0, (self.blocks, -1))
        return torch.einsum("...bik,boik->...bo", waves, weight).flatten(-2) + self.bias


@register
class Wave(LayerRule):
    """A dense layer of the cosine and the sine of what it reads."""

    name, targets = "wave_linear", frozenset({"wave_linear"})
    whole = modules = (WaveLinear,)
    axis = -1
    cases = (module_case(lambda: WaveLinear(4, 6), (3, 4)),)

    def geometry(self, op, x, weight):  # noqa: ANN001, ANN201
        """The weight is ``[out, in / blocks, 2]``: two per pair of an input and an output."""
        return Geometry(weight[1], weight[0], 1, 2)

    def channels(self, op, inputs, widths):  # noqa: ANN001, ANN201
        """Reads the class on the last axis and writes one of its own."""
        x = inputs[0]
        if x.channels is not None and (x.channels.axis, x.channels.inner) != (
            len(x.op.shape) - 1,
            1,
        ):
            bound(op, x, widths, "is applied to an axis other than the channels")
            x = Value(x.op, None)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(len(op.shape) - 1, width)

    def moments(self, op, inputs, context):  # noqa: ANN001, ANN201
        """A dense layer reads the cosines and the sines side by side."""
        cosine = context.apply(torch.cos, "cos", inputs[0])
        sine = context.apply(torch.sin, "sin", inputs[0])
        waves = context.read(concatenate([(1, cosine), (1, sine)]))
        return context.weigh(context.layers[op.name], waves)

    def split(self, module, layer, multiplicity, widths):  # noqa: ANN001, ANN201
        """One block for every member inside a region, one block for all at its ends."""
        wave = expect(module, self.modules)
        own = wave.weight.shape[1] * wave.blocks, len(wave.weight)
        sizes = ensemble_sizes(wave, layer, multiplicity, widths, own, what="features")
        blocks = multiplicity if layer.role == "interior" else 1
        options = {"dtype": wave.weight.dtype, "device": "meta"}
        return empty_like(WaveLinear(*sizes, blocks, **options), wave)

    def narrow(self, module, shape, groups, *, bias):  # noqa: ANN001, ANN201
        """One member's own layer, of one block."""
        return WaveLinear(shape[1], shape[0], dtype=module.weight.dtype, device="meta")

    def saved(self, op, module):  # noqa: ANN001, ANN201
        """What it reads, and the waves."""
        outputs, inputs, _ = module.weight.shape
        waves = 2 * inputs * module.blocks * op.numel // outputs
        return Saved(reads=True, own=waves)


def build_model() -> nn.Module:
    """A chain of four linears with gains between them: 14,275 parameters."""
    layers: list[nn.Module] = []
    inputs = 20
    for _ in range(4):
        layers += [nn.Linear(inputs, 64), ChannelGain(64), nn.ReLU()]
        inputs = 64
    return nn.Sequential(*layers, nn.Linear(64, 3))


def build_waves() -> nn.Module:
    """A chain of five layers of waves: 27,779 parameters."""
    widths = (20, 64, 64, 64, 64, 3)
    return nn.Sequential(*(WaveLinear(*pair) for pair in pairwise(widths)))


def example_inputs() -> tuple[Tensor]:
    """Two examples of 20 features."""
    return (torch.randn(2, 20, generator=torch.Generator().manual_seed(0)),)
