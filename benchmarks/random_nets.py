"""Random architectures for benchmarks of accuracy: five kinds, eight activations, five norms."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cerewrite.kernel.activation import evaluate, gaussian_grid

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}
DENSE = ("chain", "residual", "concatenated", "gated")
NORMS = ("layer", "rms", "batch", "group")
INPUTS = 24
BATCH = 32
SIDE = 8


@dataclass(frozen=True)
class Spec:
    """One random architecture.

    Attributes:
        kind: chain, residual, concatenated, gated or conv.
        widths: width of each hidden layer (of each branch, for residual and gated nets).
        stream: channels of the residual stream; unused by chains.
        activation, norm: names; norm "" for none.
        bias: whether layers have random biases of variance 0.05.
        smooth: radius over which a conv net's input map is smoothed; 0 for white noise.
    """

    kind: str
    widths: tuple[int, ...]
    stream: int
    activation: str
    norm: str
    bias: bool
    smooth: int = 0

    @property
    def name(self) -> str:
        """A short description."""
        low, high = min(self.widths), max(self.widths)
        size = f"{low}" if low == high else f"{low}-{high}"
        extras = [self.norm and f"{self.norm} norm", "bias" if self.bias else ""]
        tail = "".join(f", {e}" for e in extras if e)
        return f"{self.kind} {len(self.widths)} x {size}, {self.activation}{tail}"


def draw_spec(rng: random.Random, kinds: tuple[str, ...], *, normed: bool) -> Spec:
    """A random architecture of one of ``kinds``, depth 1 to 20, widths 8 to 256."""
    kind = rng.choice(kinds)
    deepest = {"chain": 20, "residual": 8, "concatenated": 6, "gated": 4, "conv": 5}[kind]
    depth = min(deepest, max(1, round(math.exp(rng.uniform(0, math.log(deepest + 0.5))))))
    narrow, wide = (8, 32) if kind == "conv" else (8, 256)
    base = math.exp(rng.uniform(math.log(narrow), math.log(wide)))
    widths = [
        min(wide, max(narrow, 4 * round(base * math.exp(rng.uniform(-0.4, 0.4)) / 4)))
        for _ in range(depth)
    ]
    stream = 8 * round(math.exp(rng.uniform(math.log(32), math.log(256))) / 8)
    return Spec(
        kind,
        tuple(widths),
        stream,
        rng.choice(list(ACTIVATIONS)),
        rng.choice(("batch", "group") if kind == "conv" else NORMS) if normed else "",
        rng.random() < 0.4,
        rng.choice((0, 1, 2)),
    )


class Net(nn.Module):
    """A network of a `Spec`, weights drawn so that the signal keeps its size."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        make = ACTIVATIONS[spec.activation]
        self.act = make()
        nodes, weights = gaussian_grid()
        self.gain = 1.0 / float(weights @ evaluate(make(), nodes)[0] ** 2)
        getattr(self, f"_{spec.kind}")()

    def _norm(self, width: int) -> nn.Module:
        two = self.spec.kind == "conv"
        match self.spec.norm:
            case "layer":
                return nn.LayerNorm(width)
            case "rms":
                return nn.RMSNorm(width)
            case "batch":
                return nn.BatchNorm2d(width) if two else nn.BatchNorm1d(width)
            case "group":
                return nn.GroupNorm(2, width)
        return nn.Identity()

    def _fresh(self, layer: nn.Linear | nn.Conv2d, gain: float) -> nn.Module:
        fan_in = layer.weight[0].numel()
        with torch.no_grad():
            weight = torch.randn_like(layer.weight)
            weight *= math.sqrt(gain * weight.numel() / fan_in) / weight.norm()
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.normal_().mul_(math.sqrt(0.05 * len(layer.bias)) / layer.bias.norm())
        return layer

    def _linear(self, inputs: int, outputs: int, gain: float) -> nn.Module:
        return self._fresh(nn.Linear(inputs, outputs, bias=self.spec.bias), gain)

    def _conv2d(self, inputs: int, outputs: int, gain: float) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=self.spec.bias, padding_mode="zeros")
        return self._fresh(layer, gain)

    def _chain(self) -> None:
        layers: list[nn.Module] = []
        inputs, gain = INPUTS, 1.0
        for width in self.spec.widths:
            layers += [self._linear(inputs, width, gain), self._norm(width), self.act]
            inputs, gain = width, self.gain
        self.body = nn.Sequential(*layers, self._linear(inputs, 3, gain))

    def _residual(self) -> None:
        c = self.spec.stream
        self.stem = self._linear(INPUTS, c, 1.0)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                self._norm(c), self._linear(c, n, 1.0), self.act, self._linear(n, c, self.gain / 2)
            )
            for n in self.spec.widths
        )
        self.head = self._linear(c, 3, 1.0)

    def _gated(self) -> None:
        c = self.spec.stream
        self.stem = self._linear(INPUTS, c, 1.0)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": self._norm(c),
                    "gate": self._linear(c, n, 1.0),
                    "value": self._linear(c, n, 1.0),
                    "down": self._linear(n, c, self.gain / 2),
                }
            )
            for n in self.spec.widths
        )
        self.head = self._linear(c, 3, 1.0)

    def _concatenated(self) -> None:
        self.stem = self._linear(INPUTS, self.spec.stream, 1.0)
        width, blocks = self.spec.stream, []
        for n in self.spec.widths:
            blocks.append(
                nn.Sequential(self._norm(width), self.act, self._linear(width, n, self.gain))
            )
            width += n
        self.blocks = nn.ModuleList(blocks)
        self.head = self._linear(width, 3, 1.0)

    def _conv(self) -> None:
        layers: list[nn.Module] = []
        inputs, gain = 3, 1.0
        for width in self.spec.widths:
            layers += [self._conv2d(inputs, width, gain), self._norm(width), self.act]
            inputs, gain = width, self.gain
        pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers, *pool, self._linear(inputs, 3, gain))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, 24]`` (or ``[batch, 3, 8, 8]``) to ``[batch, 3]``."""
        if self.spec.kind in ("chain", "conv"):
            return self.body(x)
        x = self.stem(x)
        for block in self.blocks:
            if self.spec.kind == "concatenated":
                x = torch.cat([x, block(x)], 1)
            elif self.spec.kind == "gated":
                y = block["norm"](x)
                x = x + block["down"](self.act(block["gate"](y)) * block["value"](y))
            else:
                x = x + block(x)
        return self.head(x)


def make_inputs(spec: Spec, seed: int) -> Tensor:
    """A batch of inputs, each of mean square 1."""
    generator = torch.Generator().manual_seed(seed)
    batch = BATCH if spec.norm == "batch" else 2
    if spec.kind != "conv":
        x = torch.randn(batch, INPUTS, generator=generator)
    else:
        x = torch.randn(batch, 3, SIDE, SIDE, generator=generator)
        for _ in range(spec.smooth):
            x = nn.functional.avg_pool2d(
                nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), 3, stride=1
            )
    return x / x.flatten(1).pow(2).mean(1).sqrt().view(-1, *[1] * (x.dim() - 1))
