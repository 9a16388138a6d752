"""The measure is a choice of every verb, and the default converts what nu would leave."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import cerewrite
from cerewrite.cli import main
from cerewrite.errors import UsageError
from cerewrite.planning.measures import DEFAULT, MEASURES


def digits_mlp(depth: int = 16, width: int = 64) -> nn.Sequential:
    """The network of docs/theory.md, section 11: 8 x 8 digits, ReLU, hidden layers of one width."""
    torch.manual_seed(0)
    widths = [64, *[width] * depth]
    hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


@pytest.mark.thorough
def test_the_deep_digits_mlp_is_converted_by_default() -> None:
    result = cerewrite.convert(
        digits_mlp(), torch.ones(2, 64), gain="he", min_width=4, estimator="analytic"
    )
    plan = result.plan
    assert plan.measure == DEFAULT == "log-variance"
    assert result.verification.passed
    (split,) = plan.splits
    assert 4 <= split.multiplicity <= 20
    assert split.multiplicity * min(split.widths) > 1.5 * 64
    assert plan.planned.params <= plan.baseline.params
    assert plan.planned.log_variance < 0.8 * plan.baseline.log_variance
    assert plan.planned.leading_order < 0.6 * plan.baseline.leading_order
    assert plan.planned.nu > 0.85 * plan.baseline.nu, "by nu little would be gained"


@pytest.mark.thorough
@pytest.mark.parametrize("measure", list(MEASURES))
def test_every_measure_can_be_asked_for(measure: str) -> None:
    analysis = cerewrite.analyze(digits_mlp(4), torch.ones(2, 64), gain="he", estimator="analytic")
    stated = MEASURES[measure].of
    plans = {name: cerewrite.plan(analysis, measure=name, min_width=4).planned for name in MEASURES}
    best = min(stated(planned.measures) for planned in plans.values())
    assert stated(plans[measure].measures) <= best * (1.0 + 1e-3)
    dual = cerewrite.plan(analysis, measure=measure, objective="dual", min_width=4)
    assert dual.measure == measure
    assert dual.planned.params < dual.baseline.params
    assert stated(dual.planned.measures) <= stated(dual.baseline.measures) * (1.0 + 1e-9)


def test_an_unknown_measure_is_refused() -> None:
    analysis = cerewrite.analyze(digits_mlp(3), torch.ones(2, 64), estimator="analytic")
    with pytest.raises(UsageError, match="unknown measure 'mu'"):
        cerewrite.plan(analysis, measure="mu")


def test_the_command_offers_what_is_registered() -> None:
    shown = CliRunner().invoke(main, ["plan", "--help"]).output
    assert all(name in shown for name in MEASURES)
    assert f"[default: {DEFAULT}]" in " ".join(shown.split())


@pytest.mark.thorough
def test_the_analysis_states_all_three_with_their_errors() -> None:
    model, x = digits_mlp(3, 16), torch.randn(2, 64)
    closed = cerewrite.analyze(model, x, gain="he", estimator="analytic")
    found = cerewrite.analyze(model, x, gain="he", estimator="monte-carlo", draws=1500)
    assert found.log_variance.stderr is not None and found.log_variance.samples == 1500
    assert found.log_variance.stderr < 0.1 * found.log_variance.value
    assert closed.log_variance.stderr is None
    assert closed.log_variance.value == pytest.approx(found.log_variance.value, rel=0.25)
    assert closed.leading_order.value < closed.nu.value
    measured = cerewrite.analyze(model, x, gain="he", estimator="jackknife", draws=4)
    total = sum(layer.kappa for layer in measured.layers)
    assert measured.leading_order.value == pytest.approx(total)
    assert measured.leading_order.stderr is not None
    assert measured.log_variance.stderr is not None and measured.nu.stderr is not None
