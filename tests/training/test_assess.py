"""The assessment of members on labelled data: figures by their definitions, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import cerewrite
from cerewrite import ir
from cerewrite.cli import main
from cerewrite.errors import LoadError, TrainingError
from cerewrite.ir.assessed import Assessment
from cerewrite.training.assess import assess, bins, expected_calibration_error
from tests.conftest import WriteModel


def build(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                        nn.Linear(64, classes))  # fmt: skip
    return cerewrite.convert(net, torch.ones(2, 6), members=4, estimator="analytic").model.eval()


def data(
    model: nn.Module, count: int = 400, size: int = 6, scale: float = 4
) -> tuple[Tensor, Tensor]:
    """Labels drawn with the model's own probabilities at temperature ``1 / scale``."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, size, generator=draw)
    with torch.no_grad():
        return x, torch.multinomial((scale * model(x)).softmax(-1), 1, generator=draw)[:, 0]


def test_every_figure_is_what_it_says() -> None:
    model = build()
    x, labels = data(model, scale=20)
    found = assess(model, [(x[:150], labels[:150]), (x[150:], labels[150:])])
    with torch.no_grad():
        outputs, whole = cerewrite.members(model)(x), model(x)
    classes = outputs.argmax(-1)
    assert (found.examples, found.members, found.temperature) == (400, 4, 1.0)
    assert found.accuracy == pytest.approx((whole.argmax(-1) == labels).double().mean().item())
    assert found.nll == pytest.approx(nn.functional.cross_entropy(whole, labels).item(), rel=1e-5)
    own = [nn.functional.cross_entropy(one, labels).item() for one in outputs]
    assert (
        found.member_nll == pytest.approx(sum(own) / 4, rel=1e-5) and found.member_nll > found.nll
    )
    assert found.member_accuracy == pytest.approx((classes == labels).double().mean().item())
    dissent = (classes != whole.argmax(-1)).sum(0)
    assert found.dissent == pytest.approx([(dissent == k).double().mean().item() for k in range(5)])
    agreed = dissent == 0
    right = (whole.argmax(-1) == labels)[agreed].double().mean()
    assert found.dissent_accuracy[0] == pytest.approx(right.item())
    assert [k.coverage for k in found.coverage] == pytest.approx([1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert found.coverage[0].accuracy == pytest.approx(found.accuracy)
    assert found.coverage[-1].accuracy > found.accuracy
    assert ir.loads(Assessment, ir.dumps(found), source="test") == found


def test_calibration_error_is_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.functional", reason="compared with torchmetrics")
    draw = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(2000, 5, generator=draw)).softmax(-1)
    labels = torch.randint(5, (2000,), generator=draw)
    found = bins(probabilities.amax(-1), probabilities.argmax(-1) == labels)
    wanted = metrics.calibration_error(
        probabilities, labels, task="multiclass", num_classes=5, n_bins=15, norm="l1"
    )
    assert expected_calibration_error(found) == pytest.approx(wanted.item(), abs=1e-6)


def test_a_fitted_temperature_lowers_the_loss() -> None:
    model = build()
    x, labels = data(model, 2000)
    plain = assess(model, [(x[:1000], labels[:1000])])
    fitted = assess(model, [(x[:1000], labels[:1000])], calibration=[(x[1000:], labels[1000:])])
    assert fitted.temperature == pytest.approx(0.25, rel=0.3)  # labels were drawn at 1 / 4
    assert fitted.nll < plain.nll and fitted.ece < plain.ece
    assert fitted.accuracy == plain.accuracy


def test_what_cannot_be_assessed_is_refused() -> None:
    model, x = build(), torch.randn(8, 6)
    with pytest.raises(TrainingError, match="no batches"):
        assess(model, [])
    with pytest.raises(TrainingError, match="are no classes"):
        assess(model, [(x, torch.randn(8))])
    with pytest.raises(TrainingError, match="are no classes"):
        assess(model, [(x, torch.zeros(7, dtype=torch.long))])
    with pytest.raises(TrainingError, match="classes from 0 to 3, but the model has 3 outputs"):
        assess(model, [(x, torch.arange(8) % 4)])


DATA = """
    import torch

    from pathlib import Path

    def test():
        x, y = torch.load(Path(__file__).parent / "data.pt")
        return list(zip(x.split(50), y.split(50)))

    def number():
        return 3

    def broken():
        raise RuntimeError("no disk")
"""


def test_the_command(tmp_path: Path, write_model: WriteModel) -> None:
    model, folder = write_model(), tmp_path / "out"
    batches = write_model(DATA, "data.py")
    run = CliRunner().invoke
    result = run(main, ["convert", str(model), "--members", "4", "--out", str(folder), "-q"])
    assert result.exit_code == 0, result.output
    torch.save(data(cerewrite.load(folder).eval(), 200, 16, 20), tmp_path / "data.pt")
    file = tmp_path / "found.json"
    arguments = ["assess", str(folder), "--data", f"{batches}:test"]
    page = tmp_path / "found.html"
    written = ["--calibration", f"{batches}:test", "--json", str(file), "--html", str(page)]
    result = run(main, [*arguments, *written])
    assert result.exit_code == 0, result.output
    for text in ("4 members on 200 examples", "ECE", "disagree", "Reliability", "most certain"):
        assert text in result.output
    found = json.loads(file.read_text())
    assert "Reliability" in page.read_text() and "<script" not in page.read_text()
    assert found["examples"] == 200 and found["temperature"] != 1.0
    for name, message in (("number", "not batches"), ("broken", "no disk"), ("none", "no 'none'")):
        result = run(main, ["assess", str(folder), "--data", f"{batches}:{name}"])
        assert isinstance(result.exception, SystemExit | LoadError) and message in result.output
        assert result.exit_code == 3
