"""What a plan promises, measured on the model that came of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite import ir
from cerewrite.api import promise as promising
from cerewrite.errors import VerificationError
from cerewrite.planning import planned_figures
from cerewrite.planning.measures import region_measures

DRAWS = 96


def net(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


def maps() -> Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def converted() -> cerewrite.Conversion:
    return cerewrite.convert(net(), maps(), draws=DRAWS, min_width=4)


def test_promise_and_measurement_stand_in_report_and_verification(
    converted: cerewrite.Conversion,
) -> None:
    promise = converted.report.promise
    assert promise is not None
    assert promise.draws == DRAWS
    planned = converted.plan.planned.log_variance / converted.plan.baseline.log_variance
    assert promise.promised == pytest.approx(planned)
    assert abs(promise.measured - promise.promised) < 4 * promise.stderr < 0.6
    check = next(c for c in converted.verification.checks if c.name == "promise")
    assert check.value == promise.measured
    assert check.passed
    assert converted.report.verification == converted.verification
    assert converted.report.analysis.nu.value == converted.plan.baseline.nu


def test_a_closed_form_on_request_measures_nothing() -> None:
    result = cerewrite.convert(net(), maps(), estimator="analytic")
    assert result.report.promise is None


def test_what_draws_showed_is_what_the_planner_then_forecasts(
    converted: cerewrite.Conversion,
) -> None:
    """The excess leaves the original as it is and gives the built designs what was measured."""
    plan, analysis = converted.plan, converted.analysis
    for measured in (0.5 * promising.promised_ratio(plan, "log-variance"), 0.9):
        found = promising.with_measured(analysis, plan, measured)
        for before, after in zip(analysis.regions, found.regions, strict=True):
            own = before.region.design
            assert region_measures(after.region, own) == region_measures(before.region, own)
        splits = [promising._remeasured(split, found) for split in plan.splits]
        ratio = planned_figures(found, splits).log_variance / plan.baseline.log_variance
        assert ratio == pytest.approx(measured, rel=1e-3)


def scripted(monkeypatch: pytest.MonkeyPatch, *measured: float) -> list[ir.Plan]:
    """Measurements that come out as they are told; the plans that were measured."""
    left, plans = list(measured), list[ir.Plan]()

    def measure(plan: ir.Plan, *rest: object) -> ir.Promise:
        plans.append(plan)
        promised = promising.promised_ratio(plan, "log-variance")
        return ir.Promise("log-variance", promised, left.pop(0), 0.01, DRAWS)

    monkeypatch.setattr(promising, "measure_promise", measure)
    return plans


def test_a_broken_promise_is_planned_once_more_with_fewer_wider_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = scripted(monkeypatch, 0.9, 0.5)
    result = cerewrite.convert(net(), maps(), draws=8)
    assert len(plans) == 2
    assert plans[1].splits[0].multiplicity < plans[0].splits[0].multiplicity
    assert sum(plans[1].splits[0].widths) > sum(plans[0].splits[0].widths)
    assert result.report.promise is not None
    assert result.report.promise.plans == 2
    assert "planned anew with what draws showed" in result.plan.note
    assert result.plan.baseline.log_variance == result.analysis.log_variance.value


def test_a_model_that_stays_worse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = scripted(monkeypatch, 1.3, 1.2)
    try:
        result = cerewrite.convert(net(), maps(), draws=8)
    except VerificationError as error:
        assert "worse than the original" in error.message
        assert len(plans) == 2
    else:
        assert not result.plan.splits


def test_a_plan_that_was_given_is_measured_and_said(
    monkeypatch: pytest.MonkeyPatch, converted: cerewrite.Conversion
) -> None:
    given = replace(converted.plan, renamed=())
    plans = scripted(monkeypatch, 1.3)
    result = cerewrite.convert(net(), maps(), plan=given, draws=8)
    assert len(plans) == 1
    assert result.report.promise is not None
    assert result.report.promise.worse


def test_what_cannot_be_drawn_is_named(converted: cerewrite.Conversion) -> None:
    plan = converted.plan
    region = plan.regions[0]
    layer = replace(region.layers[0], name="nowhere")
    plan = replace(plan, regions=(replace(region, layers=(layer, *region.layers[1:])),))
    options = {"draws": 8}
    found = promising.measure_promise(plan, net(), converted.model, (maps(),), options)
    assert "'nowhere' cannot be drawn anew" in found.refused
    assert not found.worse
    assert not found.broken


def test_too_little_time_is_said(converted: cerewrite.Conversion) -> None:
    found = promising.measure_promise(
        converted.plan, net(), converted.model, (maps(),), {"seconds": 1e-9}
    )
    assert "too few" in found.refused
