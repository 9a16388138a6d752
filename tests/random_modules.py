"""Random modules that a test can build again from a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU)
KINDS = ("chain", "residual", "concatenation", "gate", "reshape", "view", "tied", "reused")
INPUTS = 6


@dataclass(frozen=True)
class Part:
    """One stretch of a random module.

    Attributes:
        kind: how its layers are joined; one of `KINDS`.
        widths: its hidden widths.
        norm: ``none``, ``batch`` or ``own`` (layer norm, or a group norm of one group).
        groups: of the hidden-to-hidden layers whose widths allow it.
        bias: whether layers have biases.
        activation: index into `ACTIVATIONS`.
    """

    kind: str
    widths: tuple[int, ...]
    norm: str = "none"
    groups: int = 1
    bias: bool = True
    activation: int = 0


class Stretch(nn.Module):
    """A `Part`: maps ``width`` channels to ``width`` channels."""

    def __init__(self, part: Part, width: int, conv: bool) -> None:
        super().__init__()
        self.part, self.conv = part, conv
        self.act = ACTIVATIONS[part.activation]()
        self.run = self._run(width)
        if part.kind in ("concatenation", "gate"):
            self.other = self._run(width)
        if part.kind == "concatenation":
            self.join = self._layer(2 * width, width)
        if part.kind in ("tied", "reused"):
            self.first, self.second = self._layer(width, width), self._layer(width, width)
        if part.kind == "tied":
            self.second.weight = self.first.weight

    def _layer(self, inputs: int, outputs: int, groups: int = 1) -> nn.Module:
        if self.conv:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=self.part.bias, groups=groups)
        return nn.Linear(inputs, outputs, bias=self.part.bias)

    def _norm(self, width: int) -> list[nn.Module]:
        if self.part.norm == "batch":
            return [nn.BatchNorm2d(width) if self.conv else nn.BatchNorm1d(width)]
        if self.part.norm == "own":
            return [nn.GroupNorm(1, width) if self.conv else nn.LayerNorm(width)]
        return []

    def _run(self, width: int) -> nn.Sequential:
        """Layers from ``width`` through the hidden widths and back."""
        sizes = (width, *self.part.widths, width)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(sizes)):
            inner = 0 < i < len(sizes) - 2
            groups = self.part.groups if inner else 1
            fits = before % groups == 0 and after % groups == 0
            layers += [self._layer(before, after, groups if fits else 1), *self._norm(after)]
            layers += [self.act] if i < len(sizes) - 2 else []
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        match self.part.kind:
            case "residual":
                return x + self.run(x)
            case "concatenation":
                return self.join(torch.cat([self.run(x), self.act(self.other(x))], 1))
            case "gate":
                return self.run(x) * torch.sigmoid(self.other(x))
            case "reshape":
                return self.run(x.flatten(1).unflatten(1, x.shape[1:]))
            case "view":
                y = self.run(x)
                return y.view(y.shape)
            case "tied":
                return self.second(self.act(self.first(self.act(self.run(x)))))
            case "reused":
                return self.first(self.act(self.first(self.act(self.run(x)))))
        return self.act(self.run(x))


class RandomModule(nn.Module):
    """Stem, stretches, read-out."""

    def __init__(self, parts: list[Part], width: int, conv: bool) -> None:
        super().__init__()
        self.conv = conv
        self.stem = nn.Conv2d(INPUTS, width, 3, padding=1) if conv else nn.Linear(INPUTS, width)
        self.parts = nn.ModuleList(Stretch(part, width, conv) for part in parts)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.parts:
            x = part(x)
        return self.head(x.mean((2, 3)) if self.conv else x)


WIDTHS = st.sampled_from([4, 6, 8, 12, 16])
PARTS = st.builds(
    Part,
    kind=st.sampled_from(KINDS),
    widths=st.lists(WIDTHS, min_size=1, max_size=3).map(tuple),
    norm=st.sampled_from(["none", "batch", "own"]),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    activation=st.integers(0, len(ACTIVATIONS) - 1),
)
MODULES = st.builds(
    RandomModule,
    parts=st.lists(PARTS, min_size=1, max_size=3),
    width=WIDTHS,
    conv=st.booleans(),
)
