"""The tree: every module once, figures that add up to the model's, refusals where they belong."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import ir
from cerewrite.planning.budgets import region_cost
from cerewrite.reporter.tree import Row, module_rows
from tests.reporter import builders
from tests.reporter.reports import LARGE, stored


def own(rows: tuple[Row, ...], part: str, at: int) -> int:
    """The sum over rows that hold no others."""
    leaves = [
        row for row, after in zip(rows, (*rows[1:], None), strict=True)
        if after is None or after.level <= row.level
    ]  # fmt: skip
    return sum(getattr(row, part)[at] for row in leaves)


@pytest.mark.parametrize("name", LARGE)
def test_rows_add_up_to_the_model_before_and_after(name: str) -> None:
    report = stored(name)
    rows = module_rows(report.analysis, report.plan)
    after = report.plan.planned if report.plan else report.analysis
    for at, figures in enumerate((report.analysis, after)):
        assert own(rows, "params", at) == rows[0].params[at] == figures.params
        assert own(rows, "flops", at) == rows[0].flops[at] == figures.flops
    assert rows[0].share == pytest.approx(1.0)
    named = [row.name for row in rows if row.name]
    assert len(named) == len(set(named))
    assert {layer.name for layer in report.analysis.layers} <= set(named)


class Mixed(nn.Module):
    """A transposed convolution, a depthwise one, a flatten, and a parameter of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.up = nn.ConvTranspose2d(3, 24, 2, 2)
        self.deep = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24),
            nn.BatchNorm2d(24),
            nn.Conv2d(24, 48, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(192, 96), nn.ReLU(), nn.Linear(96, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale, widen, classify."""
        return self.head(self.deep(self.up(x * self.scale[:, None, None]).relu()))


@pytest.mark.thorough
def test_shapes_after_are_those_of_the_built_model() -> None:
    net, images = Mixed(), torch.randn(2, 3, 4, 4)
    analysis = cerewrite.analyze(net, images, estimator="analytic", gain="he")
    plan = cerewrite.plan(analysis, allow="all", min_width=4)
    assert plan.splits
    rows = {row.name: row for row in module_rows(analysis, plan) if row.name}
    built = dict(cerewrite.apply(plan, net).named_modules())
    changed = 0
    for name, row in rows.items():
        before = dict(net.named_modules())[name]
        assert row.params == tuple(
            sum(p.numel() for p in module.parameters()) for module in (before, built[name])
        ), name
        weight = getattr(before, "weight", None)
        if isinstance(weight, torch.Tensor):
            assert row.shape[0] == tuple(weight.shape)
            after = sum(p.numel() for key, p in built[name].named_parameters() if "bias" not in key)
            assert torch.Size(row.shape[1]).numel() == after, name
            changed += row.shape[0] != row.shape[1]
    assert changed >= 4
    assert rows["up"].members[1].startswith(f"{plan.splits[0].multiplicity} x ")
    listed = module_rows(analysis, plan)
    assert listed[1].kind == "own parameters" and listed[1].params == (3, 3)


def test_a_refusal_stands_at_its_module_or_the_one_around_it() -> None:
    analysis = dataclasses.replace(
        builders.analysis(),
        rejections=(
            ir.Rejection("net.2", "a", "why", "do"),
            ir.Rejection("net.2.weight[0]", "b", "why", "do"),
            ir.Rejection("elsewhere", "c", "why", "do"),
        ),
    )
    rows = {row.name: [item.code for item in row.refused] for row in module_rows(analysis)}
    assert rows["net.2"] == ["a", "b"] and rows[""] == ["c"] and rows["net.4"] == []


def test_times_stand_at_the_module_that_holds_the_region() -> None:
    report = stored("resnet50")
    assert report.plan is not None
    rows = {row.name: row for row in module_rows(report.analysis, report.plan) if row.name}
    region = next(item.region for item in report.analysis.regions if item.name == "layer1.1")
    split = next((s for s in report.plan.splits if s.region == "layer1.1"), None)
    design = split.design if split else region.design
    assert rows["layer1.1"].nanoseconds == (
        region_cost("step", region, region.design),
        region_cost("step", region, design),
    )
    assert rows["layer1.1.conv1"].nanoseconds is None


def test_designs_that_fit_no_region_are_left_out() -> None:
    analysis, plan = builders.analysis(), builders.plan()
    wrong = dataclasses.replace(plan.splits[0], design=ir.Design(3, (5,)))
    rows = module_rows(analysis, dataclasses.replace(plan, splits=(wrong,)))
    assert all(row.params[0] == row.params[1] for row in rows)
