"""A plan file edited by hand: carried out if it keeps the rules, refused by name if not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import ir, output
from cerewrite.errors import PlanError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    analysis = cerewrite.analyze(network(), torch.ones(2, 16), gain="he", estimator="analytic")
    path = tmp_path / "plan.json"
    path.write_text(ir.dumps(cerewrite.plan(analysis, min_width=4)))
    return path, json.loads(path.read_text())


def test_an_edited_design_is_carried_out_and_counted(
    written: tuple[Path, dict[str, Any]],
) -> None:
    path, data = written
    data["splits"][0] |= {"multiplicity": 3, "widths": [8, 7, 6], "note": "by hand"}
    path.write_text(json.dumps(data))
    plan = output.read_record(ir.Plan, path)
    model = network()
    rewritten = cerewrite.apply(plan, model)
    result = cerewrite.convert(model, torch.ones(2, 16), gain="he", plan=plan, estimator="analytic")
    assert result.verification.passed
    assert result.plan.splits[0].widths == (8, 7, 6)
    assert result.plan.splits[0].note == "by hand"
    counted = sum(parameter.numel() for parameter in rewritten.parameters())
    assert result.plan.planned.params == counted != data["planned"]["params"]


def test_a_plan_that_was_not_edited_stays_as_it_is(written: tuple[Path, dict[str, Any]]) -> None:
    plan = output.read_record(ir.Plan, written[0])
    result = cerewrite.convert(
        network(), torch.ones(2, 16), gain="he", plan=plan, estimator="analytic"
    )
    assert result.plan.planned == plan.planned
    assert result.plan.splits == plan.splits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multiplicity": 4000}, "more than its budget 'params'"),
        ({"widths": [8, 7]}, "2 widths for 3 width classes"),
        ({"region": "elsewhere"}, "the plan has no such region"),
    ],
)
def test_an_edit_that_breaks_a_rule_is_refused(
    written: tuple[Path, dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    path, data = written
    data["splits"][0] |= changes
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=message) as caught:
        cerewrite.apply(output.read_record(ir.Plan, path), network())
    assert caught.value.advice
