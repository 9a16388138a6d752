"""The baselines of the published optima, each as a stem that stays and a body that is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import cerewrite
from benchmarks.resnext import ResNeXt29
from benchmarks.zoo import torchvision_models
from cerewrite.ir import Analysis, Design, Region
from cerewrite.planning.budgets import region_cost

Size = tuple[int, int]

RECORD = Path(__file__).resolve().parent.parent / "docs" / "published.json"
PIXELS = {"ResNeXt-29": 32, "ResNet-50": 64}
EXPECTED: dict[str, dict[Size, int]] = {
    "ResNeXt-29": {(37, 10): 13_743_646, (10, 10): 4_223_986},
    "ResNet-50": {(12, 10): 25_758_040, (4, 16): 17_069_096, (32, 4): 25_028_904},
}


@dataclass(frozen=True)
class Case:
    """A baseline without its stem.

    Attributes:
        name: of the baseline.
        body: the blocks and the head.
        stem: what comes before them.
        analysis: of the body.
        counted: parameters by design, as far as they have been counted.
    """

    name: str
    body: nn.Module
    stem: nn.Module
    analysis: Analysis
    counted: dict[Size, int] = field(default_factory=dict, compare=False)

    @property
    def regions(self) -> list[Region]:
        """One per block."""
        return [estimate.region for estimate in self.analysis.regions]

    @property
    def usable(self) -> list[int]:
        """The n of which the budget holds a member."""
        return [n for n in range(2, self.width + 1) if self.room(n) >= 1.0]

    @property
    def width(self) -> int:
        """The baseline's n."""
        return self.regions[0].widths[0]

    @property
    def outside(self) -> int:
        """Parameters of the stem."""
        return sum(p.numel() for p in self.stem.parameters())

    @property
    def budget(self) -> int:
        """The baseline's parameters, stem included."""
        return self.outside + self.analysis.params

    def widths(self, region: Region, n: int) -> tuple[int, ...]:
        """One member's widths in a block."""
        return tuple(n * width // self.width for width in region.widths)

    def slope(self, n: int) -> int:
        """Parameters of one member."""
        return self.params(2, n) - self.params(1, n)

    def params(self, m: int, n: int) -> int:
        """Parameters by the planner's count, stem included."""
        if (m, n) not in self.counted:
            self.counted[m, n] = self._params(m, n)
        return self.counted[m, n]

    def _params(self, m: int, n: int) -> int:
        total = self.budget
        for region in self.regions:
            total -= region_cost("params", region, Design(1, region.widths))
            total += region_cost("params", region, Design(m, self.widths(region, n)))
        return total

    def room(self, n: int) -> float:
        """Members of width n that cost what the baseline does, as a real number."""
        return 1.0 + (self.budget - self.params(1, n)) / self.slope(n)

    def built(self, m: int, n: int) -> int:
        """Parameters of the model that `cerewrite.apply` builds, stem included."""
        fixed = {region.name: (m, self.widths(region, n)) for region in self.regions}
        plan = cerewrite.plan(
            self.analysis, budget="params=4x", fixed=fixed, allow="all", widths="free"
        )
        model = cerewrite.apply(plan, self.body)
        return self.outside + sum(p.numel() for p in model.parameters())


def cases(pixels: Mapping[str, int] | None = None) -> list[Case]:
    """ResNeXt-29 and ResNet-50, each as a stem and the rest.

    Args:
        pixels: side of the images by name; on the meta device at 32 and 224 px if not given.
    """
    found = []
    sides = pixels or {"ResNeXt-29": 32, "ResNet-50": 224}
    device = "cpu" if pixels else "meta"
    with torch.device(device):
        first, second = ResNeXt29(), torchvision_models().resnet50()
        stages = (second.layer1, second.layer2, second.layer3, second.layer4)
        bodies = (
            ("ResNeXt-29", first.stem, nn.Sequential(first.stages, first.pool, first.head)),
            ("ResNet-50", nn.Sequential(second.conv1, second.bn1, second.relu, second.maxpool),
             nn.Sequential(*stages, second.avgpool, nn.Flatten(), second.fc)),
        )  # fmt: skip
    for name, stem, body in bodies:
        x = torch.zeros(2, 3, sides[name], sides[name], device=device)
        with torch.no_grad():
            entering = stem.eval()(x)
        analysis = cerewrite.analyze(body, entering, gain="he", estimator="analytic")
        found.append(Case(name, body, stem, analysis))
    return found
