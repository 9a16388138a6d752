"""The whole line in one call."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import ir
from cerewrite.errors import (
    AnalysisError,
    CerewriteError,
    InfeasibleBudgetError,
    OutputError,
    PlanError,
    TraceError,
    UsageError,
    VerificationError,
)
from tests.api.builders import INPUT, Net, same, snapshot
from tests.conftest import WriteModel


def test_conversion(net: Net, conversion: cerewrite.Conversion) -> None:
    plan = conversion.plan
    built = sum(parameter.numel() for parameter in conversion.model.parameters())
    assert built == plan.planned.params
    assert 0.95 * plan.baseline.params <= built <= plan.baseline.params
    assert plan.planned.log_variance < plan.baseline.log_variance
    assert conversion.verification.passed
    assert conversion.export is None
    assert isinstance(conversion.model, Net)
    assert conversion.model.describe() == "called 0 times"
    original, model = copy.deepcopy(net), copy.deepcopy(conversion.model)
    assert model(INPUT).shape == original(INPUT).shape


def test_free_widths_spend_the_whole_budget(analysis: ir.Analysis) -> None:
    """Members in the original's proportions leave up to 5 % of it."""
    plan = cerewrite.plan(analysis, widths="free")
    assert 0.99 * plan.baseline.params <= plan.planned.params <= plan.baseline.params
    assert plan.planned.log_variance < plan.baseline.log_variance


def test_conversion_leaves_the_model_alone(net: Net) -> None:
    before, mode = snapshot(net), [module.training for module in net.modules()]
    random = torch.random.get_rng_state()
    cerewrite.convert(net, INPUT, estimator="analytic")
    assert same(before, snapshot(net))
    assert mode == [module.training for module in net.modules()]
    assert torch.equal(random, torch.random.get_rng_state())


def test_dual(net: Net) -> None:
    plan = cerewrite.convert(net, INPUT, objective="dual", estimator="analytic").plan
    assert plan.planned.log_variance <= plan.baseline.log_variance
    assert plan.planned.params < plan.baseline.params


def test_report_holds_everything(conversion: cerewrite.Conversion) -> None:
    report = conversion.report
    assert report.plan == conversion.plan
    assert report.analysis == conversion.analysis
    assert report.verification == conversion.verification
    assert report.renamed == conversion.renamed
    assert [name for name, _ in report.seconds] == ["trace", "analyse", "plan", "rewrite", "verify"]
    assert dict(report.versions)["torch"] == torch.__version__
    assert ir.loads(ir.Report, ir.dumps(report), source="report.json") == report


@pytest.mark.thorough
def test_same_seed_same_weights(net: Net, conversion: cerewrite.Conversion) -> None:
    again, other = (
        cerewrite.convert(net, INPUT, seed=seed, estimator="analytic") for seed in (0, 1)
    )
    assert again.plan == conversion.plan
    assert same(snapshot(again.model), snapshot(conversion.model))
    assert not same(snapshot(other.model), snapshot(conversion.model))


def test_rewritten_model_lives_as_the_original_did(conversion: cerewrite.Conversion) -> None:
    model = copy.deepcopy(conversion.model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = snapshot(model)
    model.train()
    nn.functional.cross_entropy(model(INPUT), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    optimiser.step()
    assert not same(before, snapshot(model))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(conversion.model)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    model.eval()
    fresh.eval()
    assert torch.equal(model(INPUT), fresh(INPUT))
    assert not model.training
    assert model.train().training


def test_plan_that_was_written_and_read(net: Net, analysis: ir.Analysis) -> None:
    plan = cerewrite.plan(analysis)
    again = ir.loads(ir.Plan, ir.dumps(plan), source="plan.json")
    first, second = cerewrite.apply(plan, net), cerewrite.apply(again, net)
    assert same(snapshot(first), snapshot(second))
    result = cerewrite.convert(net, INPUT, plan=again, estimator="analytic")
    assert same(snapshot(first), snapshot(result.model))


@pytest.mark.parametrize(
    ("model", "inputs", "options", "error"),
    [
        (Net(), None, {}, TraceError),
        (Net(), torch.ones(2, 4, 8, 8), {}, TraceError),
        (Net(), torch.ones(2, 3), {}, TraceError),
        (nn.ReLU(), torch.ones(2, 3), {}, AnalysisError),
        (nn.Linear(3, 3), torch.ones(2, 3), {}, PlanError),
        (Net(), INPUT, {"budget": "params=0.0001x"}, InfeasibleBudgetError),
        (Net(), INPUT, {"budget": "parms"}, UsageError),
        (Net(), INPUT, {"include": ["nothing.*"]}, UsageError),
        (Net(), INPUT, {"exclude": ["nothing.*"]}, UsageError),
        (Net(), INPUT, {"estimator": "oracle"}, UsageError),
        (Net(), INPUT, {"gain": "she"}, UsageError),
        (Net(), INPUT, {"onnx": True}, UsageError),
    ],
)
def test_bad_requests(
    model: nn.Module, inputs: object, options: dict[str, object], error: type[CerewriteError]
) -> None:
    before = snapshot(model)
    with pytest.raises(error) as caught:
        cerewrite.convert(model, inputs, **({"estimator": "analytic"} | options))  # type: ignore[arg-type]
    assert caught.value.advice
    assert same(before, snapshot(model))


def test_unknown_option(net: Net) -> None:
    with pytest.raises(TypeError, match="budgets"):
        cerewrite.convert(net, INPUT, budgets="params", estimator="analytic")  # type: ignore[call-arg]


def test_failed_check_is_an_error_and_writes_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cerewrite import verifier

    broken = ir.Verification((ir.Check("membership", False, "off by one at 'body.3'"),))
    monkeypatch.setattr(verifier, "verify", lambda *arguments: broken)
    with pytest.raises(VerificationError, match=r"off by one at 'body\.3'"):
        cerewrite.convert(net, INPUT, out=tmp_path / "out", estimator="analytic")
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("{}")
    clock = cerewrite.Clock()
    with pytest.raises(OutputError, match="exists and is not empty"):
        cerewrite.convert(Net(), INPUT, out=tmp_path / "out", clock=clock, estimator="analytic")
    assert not clock.seconds
    assert (tmp_path / "out" / "plan.json").read_text() == "{}"


@pytest.mark.thorough
@pytest.mark.parametrize("stage", ["export_onnx", "render_html"])
def test_failure_while_saving_leaves_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from cerewrite import exporter, reporter

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter if stage == "export_onnx" else reporter, stage, fail)
    with pytest.raises(KeyboardInterrupt):
        cerewrite.convert(
            net, INPUT, out=tmp_path / "out", onnx=stage == "export_onnx", estimator="analytic"
        )
    assert not list(tmp_path.iterdir())


def test_model_file_of_the_fixture(write_model: WriteModel) -> None:
    model = cerewrite.build(str(write_model()))
    assert cerewrite.convert(model, torch.ones(2, 16), estimator="analytic").verification.passed


def test_a_users_initialiser(tmp_path: Path) -> None:
    """A plan records a function's name; the folder's weights load without it."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))
    x = torch.ones(2, 32)
    out = tmp_path / "out"
    ones = nn.init.ones_
    result = cerewrite.convert(net, x, init=ones, out=out, estimator="analytic")
    assert result.plan.init == "torch.nn.init:ones_"
    assert (result.model[1].weight == 1).all()
    assert torch.equal(cerewrite.load(out, net)(x), result.model(x))
    assert (cerewrite.apply(result.plan, net, init=ones)[1].weight == 1).all()
    for call in (
        lambda: cerewrite.apply(result.plan, net),
        lambda: cerewrite.load(out, net, weights=False),
    ):
        with pytest.raises(cerewrite.RewriteError, match="init:ones_, which a plan cannot hold"):
            call()
    with pytest.raises(cerewrite.UsageError, match="unknown exit scale"):
        cerewrite.plan(result.analysis, exit_scale="somewhere")
    with pytest.raises(cerewrite.UsageError, match="unknown initialiser"):
        cerewrite.plan(result.analysis, init="gian")
