"""The verbs from Python, on small networks, every stage real."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite import artifacts, ir, saving
from cerewrite.errors import (
    AnalysisError,
    CerewriteError,
    InfeasibleBudgetError,
    LoadError,
    OutputError,
    PlanError,
    RewriteError,
    StalePlanError,
    TraceError,
    UsageError,
    VerificationError,
)
from tests.conftest import ROOT, WriteModel


class Net(nn.Module):
    """A convolutional region, then a linear one, and a method of the user's own."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
        )
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def describe(self) -> str:
        return f"called {self.calls} times"


INPUT = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def analysis(net: Net) -> ir.Analysis:
    return cerewrite.analyze(net, INPUT)


@pytest.fixture(scope="module")
def conversion(net: Net) -> cerewrite.Conversion:
    return cerewrite.convert(net, INPUT)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_analysis_has_the_documented_fields(analysis: ir.Analysis) -> None:
    assert analysis.nu.value > 0
    assert analysis.nu.stderr is None
    assert analysis.layers[0].name == "body.0"
    assert all(layer.kappa >= 0 for layer in analysis.layers)
    assert analysis.regions


@pytest.mark.parametrize("inputs", [INPUT, (INPUT,), [INPUT], {"x": INPUT}, INPUT[:1]])
def test_inputs_in_any_form(net: Net, analysis: ir.Analysis, inputs: object) -> None:
    found = cerewrite.analyze(net, inputs)
    assert found.nu == analysis.nu
    assert found.fingerprint == analysis.fingerprint


def test_options_reach_the_analysis(net: Net, analysis: ir.Analysis) -> None:
    other = cerewrite.analyze(net, INPUT, parametrization="standard", gain="he")
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


def test_conversion(net: Net, conversion: cerewrite.Conversion) -> None:
    plan = conversion.plan
    built = sum(parameter.numel() for parameter in conversion.model.parameters())
    assert built == plan.planned.params
    assert 0.99 * plan.baseline.params <= built <= plan.baseline.params
    assert plan.planned.log_variance < plan.baseline.log_variance
    assert conversion.verification.passed
    assert conversion.export is None
    assert isinstance(conversion.model, Net)
    assert conversion.model.describe() == "called 0 times"
    original, model = copy.deepcopy(net), copy.deepcopy(conversion.model)
    assert model(INPUT).shape == original(INPUT).shape


def test_conversion_leaves_the_model_alone(net: Net) -> None:
    before, mode = snapshot(net), [module.training for module in net.modules()]
    random = torch.random.get_rng_state()
    cerewrite.convert(net, INPUT)
    assert same(before, snapshot(net))
    assert mode == [module.training for module in net.modules()]
    assert torch.equal(random, torch.random.get_rng_state())


def test_dual(net: Net) -> None:
    plan = cerewrite.convert(net, INPUT, objective="dual").plan
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


def test_same_seed_same_weights(net: Net, conversion: cerewrite.Conversion) -> None:
    again, other = (cerewrite.convert(net, INPUT, seed=seed) for seed in (0, 1))
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


def test_plan_that_was_written_and_read(net: Net, analysis: ir.Analysis) -> None:
    plan = cerewrite.plan(analysis)
    again = ir.loads(ir.Plan, ir.dumps(plan), source="plan.json")
    first, second = cerewrite.apply(plan, net), cerewrite.apply(again, net)
    assert same(snapshot(first), snapshot(second))
    result = cerewrite.convert(net, INPUT, plan=again)
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
        cerewrite.convert(model, inputs, **options)  # type: ignore[arg-type]
    assert caught.value.advice
    assert same(before, snapshot(model))


def test_unknown_option(net: Net) -> None:
    with pytest.raises(TypeError, match="budgets"):
        cerewrite.convert(net, INPUT, budgets="params")  # type: ignore[call-arg]


def test_plan_for_another_model(analysis: ir.Analysis) -> None:
    with pytest.raises(StalePlanError, match="fingerprint"):
        cerewrite.apply(cerewrite.plan(analysis), Net(width=16))


def test_edited_plan_that_contradicts_itself(net: Net, analysis: ir.Analysis) -> None:
    plan = cerewrite.plan(analysis)
    split = dataclasses.replace(plan.splits[0], widths=(*plan.splits[0].widths, 3))
    with pytest.raises(PlanError, match=split.region):
        cerewrite.apply(dataclasses.replace(plan, splits=(split, *plan.splits[1:])), net)


def test_revert_of_a_model_that_is_none() -> None:
    with pytest.raises(RewriteError, match="not a rewritten model"):
        cerewrite.revert(nn.Linear(2, 2))


def test_failed_check_is_an_error_and_writes_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cerewrite import verifier

    broken = ir.Verification((ir.Check("membership", False, "off by one at 'body.3'"),))
    monkeypatch.setattr(verifier, "verify", lambda *arguments: broken)
    with pytest.raises(VerificationError, match=r"off by one at 'body\.3'"):
        cerewrite.convert(net, INPUT, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def folder(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of a model file, with ONNX."""
    root = tmp_path_factory.mktemp("saved")
    (root / "nets").mkdir()
    (root / "nets" / "model.py").write_text(
        "from tests.test_pipeline import Net, INPUT as example_inputs\n"
        "def build_model():\n    return Net()\n"
    )
    source = f"{root}/nets/model.py:build_model"
    result = cerewrite.convert(net, INPUT, out=root / "out", onnx=True, source=source)
    assert result.export is not None
    assert all(parity.passed for parity in result.export.parity)
    return root / "out"


def test_folder_is_complete(folder: Path) -> None:
    names = {item.name for item in folder.iterdir()}
    assert names == {
        artifacts.PLAN,
        artifacts.WEIGHTS,
        artifacts.REPORT,
        artifacts.PAGE,
        artifacts.ONNX,
        artifacts.MODULE,
    }
    assert {item.name for item in folder.parent.iterdir()} == {"nets", "out"}
    report = artifacts.read_record(ir.Report, folder / artifacts.REPORT)
    assert report.plan == saving.read_plan(folder)
    assert report.export is not None
    assert report.export.path == artifacts.ONNX
    assert [name for name, _ in report.seconds][-2:] == ["export", "save"]
    assert (folder / artifacts.PAGE).read_text().lower().startswith("<!doctype html>")


def test_load(net: Net, folder: Path, conversion: cerewrite.Conversion) -> None:
    loaded = cerewrite.load(folder)
    assert same(snapshot(loaded), snapshot(conversion.model))
    fresh = Net()
    before = snapshot(fresh)
    assert same(snapshot(cerewrite.load(folder, fresh)), snapshot(loaded))
    assert same(before, snapshot(fresh))
    assert not same(snapshot(cerewrite.load(folder, fresh, weights=False)), snapshot(loaded))
    assert cerewrite.load(folder, fresh, inplace=True) is fresh


def test_load_into_a_model_that_fails_leaves_it_as_it_was(folder: Path, tmp_path: Path) -> None:
    for name in (artifacts.PLAN, artifacts.MODULE):
        (tmp_path / name).write_text((folder / name).read_text())
    fresh = Net()
    before = snapshot(fresh)
    with pytest.raises(OutputError, match="no such file"):
        cerewrite.load(tmp_path, fresh, inplace=True)
    assert same(before, snapshot(fresh))


def test_generated_file_in_a_fresh_process(folder: Path) -> None:
    script = (
        "from model_ce import build_model\nimport torch\n"
        "torch.manual_seed(1); fresh = build_model()\n"
        "trained = build_model(weights=True)\n"
        "print(type(fresh).__name__, sum(p.numel() for p in fresh.parameters()),\n"
        "      torch.equal(fresh.head[0].weight, trained.head[0].weight))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    plan = saving.read_plan(folder)
    assert result.stdout.split()[:2] == ["Net", str(plan.planned.params)], result.stderr


def test_export_of_any_model(net: Net, tmp_path: Path) -> None:
    export = cerewrite.export_onnx(net, tmp_path / "net.onnx", INPUT)
    assert [parity.batch for parity in export.parity][:3] == [1, 2, 7]
    assert all(parity.passed for parity in export.parity)


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("{}")
    clock = cerewrite.Clock()
    with pytest.raises(OutputError, match="exists and is not empty"):
        cerewrite.convert(Net(), INPUT, out=tmp_path / "out", clock=clock)
    assert not clock.seconds
    assert (tmp_path / "out" / "plan.json").read_text() == "{}"


@pytest.mark.parametrize("stage", ["export_onnx", "render_html"])
def test_failure_while_saving_leaves_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from cerewrite import exporter, reporter

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter if stage == "export_onnx" else reporter, stage, fail)
    with pytest.raises(KeyboardInterrupt):
        cerewrite.convert(net, INPUT, out=tmp_path / "out", onnx=stage == "export_onnx")
    assert not list(tmp_path.iterdir())


def test_save_of_a_trained_model(conversion: cerewrite.Conversion, tmp_path: Path) -> None:
    model = copy.deepcopy(conversion.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    cerewrite.save(tmp_path / "out", model, conversion.plan)
    assert same(snapshot(cerewrite.load(tmp_path / "out", Net())), snapshot(model))
    with pytest.raises(LoadError, match="came from Python"):
        cerewrite.load(tmp_path / "out")


def test_load_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such folder"):
        cerewrite.load(tmp_path / "none")
    with pytest.raises(OutputError, match=r"plan\.json: cannot be read"):
        cerewrite.load(tmp_path)


def test_model_file_of_the_fixture(write_model: WriteModel) -> None:
    model = cerewrite.build(str(write_model()))
    assert cerewrite.convert(model, torch.ones(2, 16)).verification.passed


def test_public_names_exist() -> None:
    for name in cerewrite.__all__:
        assert getattr(cerewrite, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = cerewrite.nothing_such


def test_a_users_initialiser(tmp_path: Path) -> None:
    """A plan records a function's name; the folder's weights load without it."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))
    x = torch.ones(2, 32)
    out = tmp_path / "out"
    ones = nn.init.ones_
    result = cerewrite.convert(net, x, init=ones, out=out)
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
