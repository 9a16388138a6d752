"""Training steps of three rewritten networks, with `NarrowConv2d` and with the stock layer."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import CerewriteError
from cerewrite.nn.narrow_conv import STOCK
from cerewrite.timing.interleave import interleave

STORED = Path(__file__).with_suffix(".jsonl")
BATCH = 32
COMMON: dict[str, Any] = {"gain": "he", "estimator": "analytic", "min_gain": 0.0}
DESIGNS: dict[str, dict[str, Any]] = {
    "params, all else held": {},
    "params": {"allow": "all"},
    "params, FLOPs": {"budget": ["params", "flops"], "allow": "all"},
    "params, widths x 8": {"allow": "all", "channel_multiple": 8, "min_width": 8},
}


def norm_relu(conv: nn.Conv2d) -> list[nn.Module]:
    """A convolution with what follows it."""
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]


def head(width: int) -> list[nn.Module]:
    """From maps to ten classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def plain_cnn() -> nn.Module:
    """Six 3x3 convolutions, as a new user would write them."""
    layers: list[nn.Module] = []
    before = 3
    for index, width in enumerate((64, 64, 128, 128, 256, 256)):
        layers += norm_relu(nn.Conv2d(before, width, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2)] if index in (1, 3) else []
        before = width
    return nn.Sequential(*layers, *head(before))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.inner = nn.Sequential(
            *norm_relu(nn.Conv2d(before, width, 1, bias=False)),
            *norm_relu(nn.Conv2d(width, width, 3, stride, 1, bias=False)),
            *norm_relu(nn.Conv2d(width, after, 1, bias=False))[:2],
        )
        same = before == after and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, before, side, side]`` to ``[batch, 4 width, side / stride, ...]``."""
        return torch.relu(self.inner(x) + self.short(x))


def bottleneck_resnet() -> nn.Module:
    """Six blocks in three stages."""
    layers, before = norm_relu(nn.Conv2d(3, 32, 3, padding=1, bias=False)), 32
    for width, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers.append(Bottleneck(before, width, stride))
        before = 4 * width
    return nn.Sequential(*layers, *head(before))


def separable_cnn() -> nn.Module:
    """Depthwise and 1x1 convolutions in turns, as in MobileNet."""
    layers, before = norm_relu(nn.Conv2d(3, 64, 3, padding=1, bias=False)), 64
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        depth = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        layers += norm_relu(depth) + norm_relu(nn.Conv2d(before, width, 1, bias=False))
        before = width
    return nn.Sequential(*layers, *head(before))


NETWORKS = {"plain CNN": plain_cnn, "bottleneck ResNet": bottleneck_resnet,
            "separable CNN": separable_cnn}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps:
    """One design of one network.

    Attributes:
        members: fewest and most members of a grouped convolution.
        widths: the widths of members that occur.
        flops: over the original's.
        stock: a training step with stock convolutions over the original's.
        narrow: the same with the ways of `cerewrite.nn.narrow_conv`.
        refused: why there is no plan.
    """

    network: str
    design: str
    members: list[int]
    widths: list[int]
    flops: float
    stock: float
    narrow: float
    refused: str = ""

    def __str__(self) -> str:
        if not self.widths:
            why = self.refused or "no plan is better under these terms"
            return f"| {self.network} | {self.design} | {why} | | | | | |"
        return (
            f"| {self.network} | {self.design} | {' to '.join(map(str, self.members)) or '-'} "
            f"| {', '.join(map(str, self.widths)) or '-'} | {self.flops:.2f} | {self.stock:.2f} "
            f"| {self.narrow:.2f} | {self.narrow / self.stock:.2f} |"
        )


def step(model: nn.Module, x: Tensor) -> None:
    """Forward and backward."""
    model(x).sum().backward()
    for parameter in model.parameters():
        parameter.grad = None


def with_stock(model: nn.Module) -> nn.Module:
    """A copy with the stock type of every narrow convolution."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module.__class__ = STOCK.get(type(module), type(module))
    return model


def measured(network: str, design: str, runs: int) -> Steps:
    """One line."""
    torch.manual_seed(0)
    model, x = NETWORKS[network](), torch.randn(BATCH, 3, 32, 32)
    try:
        options = {"budget": "params"} | COMMON | DESIGNS[design]
        result = cerewrite.convert(model, (x[:4],), **options)
    except CerewriteError as error:
        return Steps(network, design, [], [], 1.0, 1.0, 1.0, error.message)
    found = [m for m in result.model.modules() if type(m) in STOCK]
    convs = [m for m in found if isinstance(m, nn.Conv2d)]
    groups = sorted({m.groups for m in convs})
    widths = {size // m.groups for m in convs for size in (m.in_channels, m.out_channels)}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    models = (model, with_stock(result.model), result.model)
    one, two, three = interleave(
        [partial(step, m, x) for m in models], runs=runs, warm=1, clock=clock
    )
    plan = result.plan
    return Steps(
        network,
        design,
        groups if len(groups) < 2 else [groups[0], groups[-1]],
        sorted(widths),
        plan.planned.flops / plan.baseline.flops,
        two.median / one.median,
        three.median / one.median,
    )


def stored() -> list[Steps]:
    """What has been measured."""
    lines = STORED.read_text(encoding="utf-8").splitlines() if STORED.exists() else []
    return [Steps(**json.loads(line)) for line in lines]


def measure(runs: int) -> None:
    """Measure what is not stored yet."""
    done = {(item.network, item.design) for item in stored()}
    for design in DESIGNS:
        for network in NETWORKS:
            if (network, design) not in done:
                item = measured(network, design, runs)
                with STORED.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(asdict(item)) + "\n")


def rows() -> Iterator[str]:
    """The table."""
    yield "| network | design | members | widths | FLOPs | stock | as built | built / stock |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    yield from map(str, stored())
