"""Training steps: what is timed, that nothing is left on the model, profiles of other machines."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import ir, timing
from cerewrite.errors import UsageError
from cerewrite.frontend.tracing import trace
from tests.models import chain, plain_cnn

pytestmark = pytest.mark.held


def stepped(model: nn.Module, x: torch.Tensor, batch: int = 4) -> ir.Analysis:
    return cerewrite.analyze(model, x, gain="he", estimator="analytic", step_batch=batch)


def test_a_step_leaves_the_model_and_the_random_state_as_they_were() -> None:
    model = nn.Sequential(*plain_cnn().children(), nn.Dropout(0.5)).eval()
    x = torch.randn(2, 3, 9, 9)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    analysis = cerewrite.analyze(model, x, gain="he", estimator="analytic")
    traced = trace(model, (x,))
    timed = timing.profile_step(analysis, traced, model, (x,), batch=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert timed.step > 0
    for estimate in timed.regions:
        profile = estimate.region.step
        assert profile is not None and profile.batch == 4
        assert "step cpu torch.float32" in profile.machine
        assert min(profile.linear) > 0


def test_a_step_takes_longer_than_its_forward_pass() -> None:
    model, x = chain([256, 256, 256]), torch.randn(2, 7)
    (step,) = cerewrite.bench(model, model, x, engines=["step"], batches=[64], runs=5)
    (call,) = cerewrite.bench(model, model, x, engines=["eager"], batches=[64], runs=5)
    assert step.engine == "step" and step.original > 1.3 * call.original


def test_a_model_that_cannot_train_on_the_batch_is_refused() -> None:
    model = nn.Sequential(*chain([16, 16]).children(), nn.BatchNorm1d(5, affine=False))
    (timed,) = cerewrite.bench(model, model, torch.randn(2, 7), engines=["step"], batches=[1])
    assert "a training step fails" in timed.refused
    with pytest.raises(UsageError, match="training steps at batch 0"):
        stepped(chain([16, 16]), torch.randn(2, 7), batch=0)


def test_a_stored_profile_plans_as_what_it_was_stored_from(tmp_path: Path) -> None:
    model, x = chain([64, 64, 64]), torch.randn(2, 7)
    analysis = stepped(model, x)
    record = timing.step_profile(analysis)
    assert ir.loads(ir.StepProfile, ir.dumps(record), source="x") == record
    plain = cerewrite.analyze(model, x, gain="he", estimator="analytic")
    with pytest.raises(UsageError, match="no training step was timed"):
        timing.step_profile(plain)
    again = timing.with_step_profile(plain, record)
    assert cerewrite.plan(again, allow="memory") == cerewrite.plan(analysis, allow="memory")
    file = tmp_path / "steps.json"
    file.write_text(ir.dumps(record), encoding="utf-8")
    result = cerewrite.convert(
        model, x, gain="he", estimator="analytic", profile=file, allow="memory"
    )
    assert dict(result.plan.originals)["step"] == record.step
    assert result.report.forecast is None


def test_a_profile_of_something_else_is_refused() -> None:
    model, x = chain([64, 64, 64]), torch.randn(2, 7)
    record = timing.step_profile(stepped(model, x))
    plain = cerewrite.analyze(model, x, gain="he", estimator="analytic")
    other = cerewrite.analyze(chain([64, 64]), x, gain="he", estimator="analytic")
    with pytest.raises(UsageError, match="the profile is of"):
        timing.with_step_profile(other, record)
    with pytest.raises(UsageError, match="schema 2"):
        timing.with_step_profile(plain, dataclasses.replace(record, schema=2))
    first = record.regions[0]
    for wrong in (dataclasses.replace(first, sizes=(1,)), dataclasses.replace(first, name="no")):
        with pytest.raises(UsageError, match="has no times of region"):
            timing.with_step_profile(plain, dataclasses.replace(record, regions=(wrong,)))
    short = dataclasses.replace(first, profile=dataclasses.replace(first.profile, linear=(1.0,)))
    with pytest.raises(UsageError, match="are of 1 classes, not"):
        timing.with_step_profile(plain, dataclasses.replace(record, regions=(short,)))
