"""Small networks in float64, with their batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cerewrite.diagnostics import Material
from cerewrite.diagnostics.material import default_loss
from cerewrite.frontend import tracing
from cerewrite.nn import MultiverseHead


class Block(nn.Module):
    """``x + branch(x)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        out += x
        return out


class Gated(nn.Module):
    """``out(a(x) * g(x))``; with ``tied`` both factors are the same layer's."""

    def __init__(self, wide: int = 1, *, tied: bool = False) -> None:
        super().__init__()
        width = 6 * wide
        self.a, self.g = nn.Linear(5, width), nn.Linear(5, width)
        self.out = nn.Linear(width, 3)
        self.tied = tied

    def forward(self, x: Tensor) -> Tensor:
        left = self.a(x)
        return self.out(left * (torch.tanh(left) if self.tied else self.g(x)))


def mlp(wide: int = 1) -> nn.Module:
    a, b = 7 * wide, 6 * wide
    return nn.Sequential(nn.Linear(5, a), nn.ReLU(), nn.Linear(a, b), nn.Tanh(), nn.Linear(b, 3))


def residual_mlp(wide: int = 1) -> nn.Module:
    n = 6 * wide
    branches = [nn.Sequential(nn.Linear(n, n), nn.Tanh(), nn.Linear(n, n)) for _ in range(2)]
    return nn.Sequential(nn.Linear(5, n), *map(Block, branches), nn.Linear(n, 3))


def residual_cnn(wide: int = 1) -> nn.Module:
    n = 4 * wide

    def branch() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(n, n, 3, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.ReLU(inplace=True),
            nn.Conv2d(n, n, 3, padding=1, bias=False),
            nn.BatchNorm2d(n),
        )

    return nn.Sequential(
        nn.Conv2d(2, n, 3, padding=1),
        nn.ReLU(),
        Block(branch()),
        nn.ReLU(),
        Block(branch()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(n, 3),
    )


def multiverse(wide: int = 1) -> nn.Module:
    n = 8 * wide
    return nn.Sequential(nn.Linear(5, n), nn.ReLU(), MultiverseHead(n, 3, heads=3))


NETS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (5,)),
    "residual_mlp": (residual_mlp, (5,)),
    "residual_cnn": (residual_cnn, (2, 5, 5)),
    "gated": (Gated, (5,)),
    "multiverse": (multiverse, (5,)),
}


def batch(shape: tuple[int, ...], count: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


def material(model: nn.Module, x: Tensor, y: Tensor | None) -> Material:
    """The model itself as material: what is computed is of its own weights."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    traced = tracing.trace(model, (x,))
    return Material(model, traced, (x,), y, None if y is None else default_loss, len(x))


def case(
    name: str, seed: int = 0, count: int = 8, wide: int = 1
) -> tuple[nn.Module, Tensor, Tensor, Material]:
    factory, shape = NETS[name]
    torch.manual_seed(seed)
    model = factory(wide).double()
    x, y = batch(shape, count)
    return model, x, y, material(model, x, y)
