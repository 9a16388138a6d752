"""The published optima of Collegial Ensembles (2006.07678), ours beside them: docs/PUBLISHED.md.

    python -m benchmarks.published > docs/PUBLISHED.md

One multiplicity and one scale for all blocks; n is a member's width in the first stage. The
stem stays as it is, as in the paper, so the blocks and the head are analysed alone. Parameters
are those of models that `cerewrite.apply` has built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

import cerewrite
from benchmarks.resnext import ResNeXt29
from benchmarks.zoo import torchvision_models
from cerewrite.budgets import region_cost
from cerewrite.ir import Analysis, Region
from cerewrite.measures import MEASURES

Score = Callable[[float, int], float]
Design = tuple[int, int]

STREAM = 256
HEAD = """# The published optima, and ours

Written by `python -m benchmarks.published`; do not edit. n is a member's width in the first stage
and doubles from stage to stage; the stem is left as it is. Parameters are counted on models that
`cerewrite.apply` built. `family` is `nu = (exp(alpha (2/n + 2/256)) - 1) / m`; `ours` is the
closed form, composed over all blocks, with one spatial factor rho at every site (assumed, not
measured). With m real, each n has exactly the budget (primal) or the baseline's nu (dual).
`m whole, within` takes the largest whole m within the budget, whose rounding can move n by
several channels: the published ResNet-50 primal, 12 x 10d, is the nearest m, and over budget.

The family divides the stream's term, `2/256`, by m as well, which is why its dual needs fewer
members at n = 10 than the ratio of widths; in the closed form only the hidden layers are
divided, so it asks for more members than were published, at every factor. nu before and after
the split is the closed form's, no Monte-Carlo.
"""
ALPHAS = (1.25, 1.5, 1.75, 2.0, 2.5)
FACTORS = (1.5, 1.25, 1.0, 0.7, 0.35)
EXPECTED: dict[str, dict[Design, int]] = {
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
    """

    name: str
    body: nn.Module
    stem: nn.Module
    analysis: Analysis

    @property
    def regions(self) -> list[Region]:
        """One per block."""
        return [estimate.region for estimate in self.analysis.regions]

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
        total = self.budget
        for region in self.regions:
            total -= region_cost("params", region, 1, region.widths)
            total += region_cost("params", region, m, self.widths(region, n))
        return total

    def room(self, n: int) -> float:
        """Members of width n that cost what the baseline does, as a real number."""
        return 1.0 + (self.budget - self.params(1, n)) / self.slope(n)

    def built(self, m: int, n: int) -> int:
        """Parameters of the model that `cerewrite.apply` builds, stem included."""
        fixed = {region.name: (m, self.widths(region, n)) for region in self.regions}
        plan = cerewrite.plan(self.analysis, budget="params=4x", fixed=fixed)
        model = cerewrite.apply(plan, self.body)
        return self.outside + sum(p.numel() for p in model.parameters())


def family(alpha: float) -> Score:
    """``nu = (exp(alpha (2/n + 2/C)) - 1) / m``."""
    return lambda m, n: math.expm1(alpha * (2 / n + 2 / STREAM)) / m


def closed_form(case: Case, rho: float, measure: str) -> Score:
    """Our own composition over all blocks with one spatial factor at every site."""
    asked = MEASURES[measure]
    regions = [
        replace(r, sites=tuple(replace(site, rho=rho) for site in r.sites)) for r in case.regions
    ]
    return lambda m, n: sum(asked.region_score(r.sites, m, case.widths(r, n)) for r in regions)


def optima(case: Case, score: Score) -> list[str]:
    """Primal and dual, with m real and m whole, and the dual's m at n = 10 and 16."""
    usable = [n for n in range(2, case.width + 1) if case.room(n) >= 1.0]
    smooth = min(usable, key=lambda n: score(case.room(n), n))
    whole = min(usable, key=lambda n: score(math.floor(case.room(n)), n))
    own = score(1, case.width)
    needed = {n: _members(lambda m, n=n: score(m, n), own) for n in usable}  # type: ignore[misc]
    dual = min(usable, key=lambda n: needed[n] * case.slope(n))
    return [
        str(smooth),
        f"{math.floor(case.room(whole))} x {whole}",
        f"{dual} (m = {needed[dual]:.1f})",
        f"{needed[10]:.2f}",
        f"{needed[16]:.2f}",
    ]


def _members(score: Callable[[float], float], goal: float) -> float:
    """The real m at which the score falls to the goal, by bisection in log m."""
    low, high = 1e-3, 1e6
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if score(middle) > goal else (low, middle)
    return high


def show(case: Case) -> None:
    """Print one baseline's section."""
    counts(case)
    print("| nu | primal n, m real | primal, m whole, within | dual n | dual m at n = 10 | at 16 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for alpha in ALPHAS:
        print(f"| family, alpha {alpha} | " + " | ".join(optima(case, family(alpha))) + " |")
    for rho in FACTORS:
        row = optima(case, closed_form(case, rho, "nu"))
        print(f"| ours, rho {rho} | " + " | ".join(row) + " |", flush=True)
    own(case)


def counts(case: Case) -> None:
    """Parameters of built designs beside the published ones."""
    print(f"\n## {case.name}, baseline 1 x {case.width}d, {case.budget:,} parameters\n")
    print("| design | built | published | within the budget |\n| --- | --- | --- | --- |")
    near, most = round(case.room(10)), math.floor(case.room(10))
    for m, n in dict.fromkeys([*EXPECTED[case.name], (near, 10), (most, 10)]):
        built, published = case.built(m, n), EXPECTED[case.name].get((m, n))
        assert built == case.params(m, n)
        said = "-" if published is None else f"{published:,}"
        if published not in (None, built):
            said += " (differs)"
        print(f"| {m} x {n}d | {built:,} | {said} | {'yes' if built <= case.budget else 'no'} |")
    print(f"\nAt n = 10: nearest in parameters m = {near}, largest within the budget m = {most}.\n")


def own(case: Case) -> None:
    """The planner's optima, uniform and block by block."""
    print(
        "\nOur own optimum at equal parameters, spatial factor 1 (whole widths, the planner's):\n"
    )
    print("| measure | uniform | parameters | block by block, nu | uniform, nu | before |")
    print("| --- | --- | --- | --- | --- | --- |")
    for measure in MEASURES:
        plan, free = (
            cerewrite.plan(case.analysis, measure=measure, uniform=uniform, min_width=4)
            for uniform in (True, False)
        )
        split = plan.splits[0]
        print(f"| {measure} | {split.multiplicity} x {split.widths[0]}d | "
              f"{case.outside + plan.planned.params:,} | {free.planned.nu:.4f} | "
              f"{plan.planned.nu:.4f} | {plan.baseline.nu:.4f} |", flush=True)  # fmt: skip


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
            x = torch.zeros(2, 3, sides[name], sides[name])
            with torch.no_grad():
                entering = stem.eval()(x)
            analysis = cerewrite.analyze(body, entering, gain="he")
            found.append(Case(name, body, stem, analysis))
    return found


def main() -> None:
    """Write the document."""
    print(HEAD)
    for case in cases():
        show(case)


if __name__ == "__main__":
    main()
