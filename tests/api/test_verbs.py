"""The single verbs from Python, every stage real."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
from torch import nn

import cerewrite
from cerewrite import ir
from cerewrite.errors import (
    PlanError,
    RewriteError,
    StalePlanError,
    UnknownOptionError,
    UsageError,
)
from tests.api.builders import INPUT, Net, same, snapshot
from tests.editing import edited


def test_analysis_has_the_documented_fields(analysis: ir.Analysis) -> None:
    assert analysis.nu.value > 0
    assert analysis.nu.stderr is None
    assert analysis.layers[0].name == "body.0"
    assert all(layer.kappa >= 0 for layer in analysis.layers)
    assert analysis.regions


@pytest.mark.parametrize("inputs", [INPUT, (INPUT,), [INPUT], {"x": INPUT}, INPUT[:1]])
def test_inputs_in_any_form(net: Net, analysis: ir.Analysis, inputs: object) -> None:
    found = cerewrite.analyze(net, inputs, estimator="analytic")
    assert found.nu == analysis.nu
    assert found.fingerprint == analysis.fingerprint


def test_options_reach_the_analysis(net: Net, analysis: ir.Analysis) -> None:
    other = cerewrite.analyze(
        net, INPUT, parametrization="standard", gain="he", estimator="analytic"
    )
    assert (other.parametrization, other.gain) == ("standard", "he")
    assert other.nu != analysis.nu


def test_plan_has_the_documented_fields(analysis: ir.Analysis) -> None:
    plan = cerewrite.plan(analysis, budget="params=0.5x", objective="primal", scope="block")
    assert plan.planned.params <= 0.5 * plan.baseline.params
    assert plan.baseline.params == analysis.params
    assert plan.splits[0].multiplicity >= 1
    assert plan.splits[0].region in {region.name for region in analysis.regions}
    assert len(plan.splits[0].widths) == len(plan.regions[0].sizes)


def test_plan_at_another_scope_is_refused(analysis: ir.Analysis) -> None:
    with pytest.raises(UsageError, match="scope 'network' was asked for"):
        cerewrite.plan(analysis, scope="network")


def test_apply_and_revert(net: Net, analysis: ir.Analysis) -> None:
    before = snapshot(net)
    plan = cerewrite.plan(analysis)
    model = cerewrite.apply(plan, net)
    assert not same(before, snapshot(model))
    with pytest.raises(StalePlanError, match="applied"):
        cerewrite.apply(plan, model)
    assert same(before, snapshot(cerewrite.revert(model)))
    own = copy.deepcopy(net)
    assert cerewrite.apply(plan, own, inplace=True) is own


def test_plan_for_another_model(analysis: ir.Analysis) -> None:
    with pytest.raises(StalePlanError, match="fingerprint"):
        cerewrite.apply(cerewrite.plan(analysis), Net(width=16))


def test_edited_plan_that_contradicts_itself(net: Net, analysis: ir.Analysis) -> None:
    plan = cerewrite.plan(analysis)
    split = edited(plan.splits[0], widths=(*plan.splits[0].widths, 3))
    with pytest.raises(PlanError, match=split.region):
        cerewrite.apply(dataclasses.replace(plan, splits=(split, *plan.splits[1:])), net)


def test_revert_of_a_model_that_is_none() -> None:
    with pytest.raises(RewriteError, match="not a rewritten model"):
        cerewrite.revert(nn.Linear(2, 2))


@pytest.mark.thorough
def test_export_of_any_model(net: Net, tmp_path: Path) -> None:
    export = cerewrite.export_onnx(net, tmp_path / "net.onnx", INPUT)
    assert [parity.batch for parity in export.parity][:4] == [0, 1, 2, 7]
    assert all(parity.passed for parity in export.parity)


def test_public_names_exist() -> None:
    for name in cerewrite.__all__:
        assert getattr(cerewrite, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = cerewrite.nothing_such


@pytest.mark.parametrize(
    ("verb", "option", "nearest"),
    [
        ("analyze", "estimater", "estimator"),
        ("analyze", "latency_bach", "latency_batch"),
        ("plan", "min_widht", "min_width"),
        ("plan", "scop", "scope"),
        ("convert", "min_widht", "min_width"),
        ("convert", "overwrit", "overwrite"),
        ("bench", "thread_count", "thread_counts"),
        ("export_onnx", "opsett", "opset"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(
    net: Net, analysis: ir.Analysis, verb: str, option: str, nearest: str
) -> None:
    given = {"plan": (analysis,), "bench": (net, net, None), "export_onnx": (net, "x.onnx")}
    with pytest.raises(UnknownOptionError, match=rf"{verb}\(\).*'{option}'") as caught:
        getattr(cerewrite, verb)(*given.get(verb, (net,)), **{option: 1})
    assert f"did you mean '{nearest}'?" in caught.value.advice
    assert isinstance(caught.value, TypeError) and caught.value.exit_code == 2
