"""The designs of a task: what the planner chooses, and choices by hand; all built by cerewrite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import cerewrite
from benchmarks.training.tasks import Task
from cerewrite import ir
from cerewrite.ir import Analysis, Plan, Region, Split
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.make import planned_figures
from cerewrite.planning.measures import DEFAULT, MEASURES, region_measures

Shape = tuple[str, int, tuple[int, ...]]
"""A region's name, its members, their widths."""

LEAST = 4
"""Narrowest member that is chosen by hand."""

NARROWEST = 8
"""Least width of a member where the leading order is minimised: by itself it has none."""


@dataclass(frozen=True)
class Design:
    """One way to spend a baseline's budget.

    Attributes:
        labels: who chose it; more than one where choices coincide.
        shapes: one per region that changes; none for the baseline.
    """

    labels: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @property
    def key(self) -> str:
        """The same for the same shapes."""
        parts = [f"{r}:{m}x{','.join(map(str, w))}" for r, m, w in self.shapes]
        return " ".join(parts) or "baseline"


def analyse(task: Task) -> Analysis:
    """The product's closed form on the baseline, at He's gain."""
    torch.manual_seed(0)
    return cerewrite.analyze(
        task.build(), task.data().x[:2], gain="he", scope="block", estimator="analytic"
    )


def choose(analysis: Analysis) -> list[Design]:
    """Every design of a task, the baseline first, each shape once."""
    found: dict[tuple[Shape, ...], list[str]] = {(): ["baseline"]}
    dual = _planned(analysis, "log-variance", objective="dual")
    narrow = widest(analysis, 1, _params(analysis, dual))
    for label, shapes in (
        ("primal log-variance", _planned(analysis, "log-variance")),
        ("primal nu", _planned(analysis, "nu")),
        *_by_hand(analysis, 8),
        ("primal leading-order", _planned(analysis, "leading-order", min_width=NARROWEST)),
        ("dual log-variance", dual),
        *([] if narrow is None else [("narrow", narrow)]),
        *_by_hand(analysis, 32),
        *_by_hand(analysis, 2),
    ):
        found.setdefault(shapes, []).append(label)
    return [Design(tuple(labels), shapes) for shapes, labels in found.items()]


def _planned(analysis: Analysis, measure: str, **options: Any) -> tuple[Shape, ...]:
    """What the planner chooses within the baseline's parameters."""
    return _shapes(
        cerewrite.plan(
            analysis, budget="params", measure=measure, **options, allow="all", widths="free"
        )
    )


def _shapes(plan: Plan) -> tuple[Shape, ...]:
    return tuple((split.region, split.multiplicity, split.widths) for split in plan.splits)


def _by_hand(analysis: Analysis, members: int) -> list[tuple[str, tuple[Shape, ...]]]:
    shapes = widest(analysis, members, analysis.params)
    return [] if shapes is None else [(f"by hand {members}", shapes)]


def widest(analysis: Analysis, members: int, most: int) -> tuple[Shape, ...] | None:
    """Every region as ``members`` of its own proportions, the widest that the parameters allow.

    Args:
        analysis: the baseline's.
        members: multiplicity of every region.
        most: parameters allowed.

    Returns:
        The shapes, or None if the narrowest member is too dear.
    """
    regions = [estimate.region for estimate in analysis.regions]
    largest = max(max(region.widths) for region in regions)
    for width in range(largest, LEAST - 1, -1):
        shapes = tuple(_scaled(region, members, width / largest) for region in regions)
        if _params(analysis, shapes) <= most:
            return shapes
    return None


def _scaled(region: Region, members: int, scale: float) -> Shape:
    return region.name, members, tuple(max(round(scale * w), 1) for w in region.widths)


def _params(analysis: Analysis, shapes: Sequence[Shape]) -> int:
    return fixed_plan(analysis, shapes).planned.params


def fixed_plan(analysis: Analysis, shapes: Sequence[Shape], seed: int = 0) -> Plan:
    """A plan with given splits and no budget: the planner's record, filled in by hand."""
    regions = {estimate.name: estimate.region for estimate in analysis.regions}
    splits = tuple(_split(regions[name], m, widths) for name, m, widths in shapes)
    return Plan(
        model=analysis.model,
        fingerprint=analysis.fingerprint,
        objective="primal",
        measure=DEFAULT,
        budgets=(),
        scope=analysis.scope,
        splits=splits,
        baseline=planned_figures(analysis, ()),
        planned=planned_figures(analysis, splits),
        feasible=(),
        considered=0,
        gap=0.0,
        regions=tuple(regions[name] for name, _, _ in shapes),
        rejections=(),
        seed=seed,
    )


def _split(region: Region, members: int, widths: tuple[int, ...]) -> Split:
    design = ir.Design(members, widths)
    params, flops = (region_cost(cost, region, design) for cost in ("params", "flops"))
    return Split(region.name, design, params, flops, region_measures(region, design))


def build(task: Task, analysis: Analysis, design: Design, seeds: Sequence[int]) -> list[nn.Module]:
    """The design's module for each seed; members are drawn by cerewrite's own pass."""
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = task.build()
        if design.shapes:
            model = cerewrite.apply(fixed_plan(analysis, design.shapes, seed), model)
        models.append(model)
    return models


def figures(analysis: Analysis, design: Design) -> dict[str, float]:
    """A design's measures and controls.

    Returns:
        the whole model's ``nu``, ``log-variance`` and ``leading-order``; ``params``, ``flops``;
        ``total width`` (members times width) and ``member width``, geometric means over the
        regions' classes.
    """
    planned = fixed_plan(analysis, design.shapes).planned
    shape = {name: (members, widths) for name, members, widths in design.shapes}
    regions = [estimate.region for estimate in analysis.regions]
    at = [shape.get(r.name, (r.multiplicity, r.widths)) for r in regions]
    return {
        **{name: measure.of(planned.measures) for name, measure in MEASURES.items()},
        "params": planned.params,
        "flops": planned.flops,
        "total width": _mean([m * width for m, widths in at for width in widths]),
        "member width": _mean([width for _, widths in at for width in widths]),
    }


def _mean(widths: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, widths)) / len(widths))
