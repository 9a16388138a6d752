from __future__ import annotations

import pytest
import torch
from torch import nn

from cerewrite.analysis import analyze
from cerewrite.errors import AnalysisError, UsageError
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Analysis, dumps, loads
from cerewrite.planning import make_plan
from cerewrite.planning.measures import model_measures
from tests.models import ResidualNet, chain


def test_round_trip_and_determinism() -> None:
    model = ResidualNet()
    traced = trace(model, torch.ones(2, 3, 8, 8))
    first, second = (
        analyze(traced, model, estimator="analytic"),
        analyze(traced, model, estimator="analytic"),
    )
    assert dumps(first) == dumps(second)
    assert loads(Analysis, dumps(first), source="test") == first


def test_planner_and_analysis_state_the_same_baseline() -> None:
    """The closed form draws its layers' averages for nu; the plan starts from that figure."""
    model = chain([64, 48, 64])
    found = analyze(trace(model, torch.ones(2, 7)), model, gain="he", estimator="analytic")
    assert 0.1 < found.nu.value < 0.3
    assert model_measures(found).nu == found.nu.value
    assert make_plan(found).baseline.nu == found.nu.value
    (region,) = found.regions
    assert region.nu == pytest.approx(found.nu.value)


@pytest.mark.parametrize(
    "wrong",
    [{"estimator": "analytical"}, {"parametrization": "ntp"}, {"scope": "blok"}, {"gain": "big"},
     {"gain": -1.0}, {"seconds": -1.0}, {"seconds": float("nan")}],
    ids=str,
)  # fmt: skip
def test_unknown_choices_are_usage_errors(wrong: dict[str, object]) -> None:
    model = chain([8, 8])
    with pytest.raises(UsageError) as caught:
        analyze(trace(model, torch.ones(2, 7)), model, **wrong)  # type: ignore[arg-type]
    assert caught.value.advice


def test_model_without_layers() -> None:
    model = nn.ReLU()
    with pytest.raises(AnalysisError, match="no linear or convolution"):
        analyze(trace(model, torch.ones(2, 7)), model, estimator="analytic")
