"""The eight models of benchmarks/claims.py: small, of any width and depth, with skips or without.

All take standardised digits ``[batch, 1, 8, 8]`` and give ten classes. Every weight of a linear
or convolution layer is Gaussian of variance gain / fan-in (gain 2 before rectifiers, 1 elsewhere),
every bias 0.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10

SEEDS, STEPS, DRAWS = 8, 120, 48
"""Repetitions; steps of a training; draws of K behind every nu."""
BATCH, TRAIN, RANDOM, RATE, STEP_BATCH = 16, 1000, 256, 2e-3, 64
"""Examples diagnosed, trained on, labelled at random; Adam's rate and its batch."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is built with.

    Attributes:
        width: units, channels, growth or embedding.
        depth: hidden layers of chains, blocks elsewhere.
        skip: with the sums (concatenations), or the chain that is left without them.
        gate: hidden units of the gates; 0 for the width.
    """

    width: int
    depth: int
    skip: bool = True
    gate: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the eight.

    Attributes:
        make: the model of a shape.
        gain: of its weights.
        widths: narrow, middle, wide.
        depth: of all but the deep ones, which are twice as deep.
        skips: whether there are any.
        gates: whether products of trained values are.
        step: widths are its multiples.
    """

    make: Callable[[Shape], nn.Module]
    gain: float
    widths: tuple[int, int, int]
    depth: int
    skips: bool = True
    gates: bool = False
    step: int = field(default=1)


class Summed(nn.Module):
    """``x + branch(x)``, or the branch alone."""

    def __init__(self, branch: nn.Module, skip: bool) -> None:
        super().__init__()
        self.branch, self.skip = branch, skip

    def forward(self, x: Tensor) -> Tensor:
        """Of one shape with ``x``."""
        return x + self.branch(x) if self.skip else self.branch(x)


class Dense(nn.Module):
    """Layers that read all before them, or the last one alone; norm, rectifier, convolution."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        n, self.skip = shape.width, shape.skip
        reads = [n * (i + 1) if shape.skip else n for i in range(shape.depth)]
        self.stem = _conv(1, n)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(read), nn.ReLU(), _conv(read, n, bias=False))
            for read in reads
        )
        end = n * (shape.depth + 1) if shape.skip else n
        self.head = nn.Sequential(nn.BatchNorm2d(end), nn.ReLU(), *_head(end))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, classes]``."""
        value = self.stem(x)
        for layer in self.layers:
            value = torch.cat([value, layer(value)], 1) if self.skip else layer(value)
        out: Tensor = self.head(value)
        return out


class Attention(nn.Module):
    """Self-attention of four heads over ``[batch, tokens, width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        z = self.norm(x)
        b, t, n = x.shape
        q, k, v = (f(z).view(b, t, 4, n // 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, n))
        return out


class OverTokens(nn.Module):
    """A perceptron along the tokens of ``[batch, tokens, width]``."""

    def __init__(self, tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        out: Tensor = self.body(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return out


class Patches(nn.Module):
    """Sixteen patches of 2x2, embedded with their places; blocks; the mean token's classes."""

    def __init__(self, shape: Shape, blocks: Callable[[int], tuple[nn.Module, ...]]) -> None:
        super().__init__()
        n = shape.width
        self.embed = nn.Conv2d(1, n, 2, stride=2)
        self.places = nn.Parameter(0.5 * torch.randn(1, 16, n))
        branches = [branch for _ in range(shape.depth) for branch in blocks(n)]
        self.body = nn.Sequential(*(Summed(branch, shape.skip) for branch in branches))
        self.head = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, classes]``."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        out: Tensor = self.head(self.body(tokens).mean(1))
        return out


class Gate(nn.Module):
    """``out(a(x) * sigmoid(g(x)))`` with a hidden layer in the gate g."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.g = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        out: Tensor = self.out(self.a(x) * self.g(x))
        return out


def _conv(read: int, written: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(read, written, 3, padding=1, bias=bias)


def _head(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)


def _mlp(shape: Shape) -> nn.Module:
    n = shape.width
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, n), nn.ReLU()]
    for _ in range(shape.depth - 1):
        layers += [nn.Linear(n, n), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(n, CLASSES))


def _cnn(shape: Shape) -> nn.Module:
    n = shape.width
    layers: list[nn.Module] = [_conv(1, n), nn.ReLU()]
    for _ in range(shape.depth - 1):
        layers += [_conv(n, n), nn.ReLU()]
    return nn.Sequential(*layers, *_head(n))


def _resnet(shape: Shape, *, norm: bool) -> nn.Module:
    n = shape.width

    def normed() -> list[nn.Module]:
        return [_conv(n, n, bias=not norm), *([nn.BatchNorm2d(n)] if norm else [])]

    layers: list[nn.Module] = [_conv(1, n), nn.ReLU()]
    for _ in range(shape.depth):
        layers += [Summed(nn.Sequential(*normed(), nn.ReLU(), *normed()), shape.skip), nn.ReLU()]
    return nn.Sequential(*layers, *_head(n))


def _normed_resnet(shape: Shape) -> nn.Module:
    return _resnet(shape, norm=True)


def _bare_resnet(shape: Shape) -> nn.Module:
    return _resnet(shape, norm=False)


def _over_features(n: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))


def _vit(shape: Shape) -> nn.Module:
    return Patches(shape, lambda n: (Attention(n), _over_features(n)))


def _mixer(shape: Shape) -> nn.Module:
    return Patches(shape, lambda n: (OverTokens(16, n, n), _over_features(n)))


def _gated(shape: Shape) -> nn.Module:
    n = shape.width
    blocks = (Summed(Gate(n, shape.gate or n), shape.skip) for _ in range(shape.depth))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n), *blocks, nn.Linear(n, CLASSES))


KINDS: dict[str, Kind] = {
    "mlp": Kind(_mlp, 2.0, (16, 32, 128), 4, skips=False),
    "cnn": Kind(_cnn, 2.0, (8, 16, 32), 4, skips=False),
    "resnet": Kind(_normed_resnet, 2.0, (8, 16, 32), 3),
    "resnet without norm": Kind(_bare_resnet, 2.0, (8, 16, 32), 3),
    "densenet": Kind(Dense, 2.0, (4, 8, 16), 4),
    "vit": Kind(_vit, 1.0, (16, 32, 64), 2, step=4),
    "gated": Kind(_gated, 1.0, (16, 32, 128), 2, gates=True),
    "mixer": Kind(_mixer, 1.0, (16, 32, 64), 2),
}


@functools.cache
def variants(kind: Kind) -> dict[str, Shape]:
    """Shapes of a kind, by what sets them apart."""
    narrow, middle, wide = (Shape(width, kind.depth) for width in kind.widths)
    deep = replace(middle, depth=2 * kind.depth)
    found = {"narrow": narrow, "middle": middle, "wide": wide, "deep": deep}
    if kind.skips:
        found["plain"] = replace(middle, skip=False)
        found["deep plain"] = replace(deep, skip=False)
    if kind.gates:
        found["wide gate"] = replace(narrow, gate=wide.width)
    goal = size(kind, middle)
    shapes = [replace(deep, width=w) for w in range(kind.step, middle.width + 1, kind.step)]
    place = bisect_left(shapes, goal, key=lambda shape: size(kind, shape))
    # Twice as deep, of as many parameters as near as widths allow.
    found["thin"] = min(
        shapes[max(place - 1, 0) : place + 1], key=lambda shape: abs(size(kind, shape) - goal)
    )
    return found


@functools.cache
def size(kind: Kind, shape: Shape) -> int:
    """Parameters of a shape."""
    with torch.device("meta"):
        return sum(p.numel() for p in kind.make(shape).parameters())


def build(kind: Kind, shape: Shape, seed: int) -> nn.Module:
    """The model, its weights drawn with a seed."""
    torch.manual_seed(seed)
    model = kind.make(shape)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight: Any = module.weight
            fan = weight[0].numel()
            nn.init.normal_(weight, std=(kind.gain / fan) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
