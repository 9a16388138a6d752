"""What the members' spread says: its formulas, its calibration, and what is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import RewriteError, TrainingError, UsageError
from cerewrite.training.uncertainty import Uncertainty, fit_temperature


def build(out: int = 3, members: int = 4) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(),
                        nn.Linear(64, out))  # fmt: skip
    return cerewrite.convert(net, torch.ones(2, 6), members=members, estimator="analytic").model


def test_classification_follows_the_definitions() -> None:
    model = build()
    uncertainty = Uncertainty(model)
    uncertainty.temperature = 2.0
    x = torch.randn(7, 6)
    model.train()
    found = uncertainty(x)
    assert model.training and not found.mean.requires_grad  # flags are put back
    outputs = cerewrite.members(model.eval())(x).detach()
    torch.testing.assert_close(found.mean, model(x).detach())
    torch.testing.assert_close(found.spread, outputs.std(0))
    torch.testing.assert_close(found.probabilities, (found.mean / 2).softmax(-1))
    own = (outputs / 2).softmax(-1)
    total = -(own.mean(0) * own.mean(0).log()).sum(-1)
    torch.testing.assert_close(found.entropy, total)
    divergence = (own * (own / own.mean(0)).log()).sum(-1).mean(0)  # KL to the mean, averaged
    torch.testing.assert_close(found.mutual_information, divergence, rtol=1e-3, atol=1e-6)
    assert (found.mutual_information > 0).all() and (found.entropy <= math.log(3)).all()
    assert found.variance is None


def test_members_that_agree_have_no_mutual_information() -> None:
    model = build()
    with torch.no_grad():
        model[-1].weight.zero_()
    found = Uncertainty(model)(torch.randn(4, 6))
    assert not found.mutual_information.any() and not found.spread.any()


def test_the_temperature_is_the_one_of_the_labels() -> None:
    """Labels drawn at temperature 2.5 give it back, to the resolution of 4,000 examples."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=generator)[:, 0]
    found = fit_temperature(logits, labels)
    scores = logits.double() / 2.5
    weights = scores.softmax(-1)
    fisher = (weights * scores.square()).sum(-1) - (weights * scores).sum(-1).square()
    stderr = 2.5 / math.sqrt(float(fisher.sum()))  # of T, by the curvature in log(1 / T)
    assert 4 * stderr < 0.25
    assert abs(found - 2.5) < 4 * stderr
    maps = logits.view(40, 100, 5).transpose(1, 2)  # classes on axis 1, as cross_entropy has it
    assert fit_temperature(maps, labels.view(40, 100)) == pytest.approx(found)


def test_calibration_lowers_the_loss_of_an_overconfident_model() -> None:
    model = build()
    with torch.no_grad():
        model[-1].weight.mul_(50)
    x, labels = torch.randn(200, 6), torch.randint(3, (200,))
    with torch.no_grad():
        labels[:150] = model.eval()(x[:150]).argmax(-1)
    uncertainty = Uncertainty(model)
    before = nn.functional.nll_loss(uncertainty(x).probabilities.log(), labels)
    found = uncertainty.calibrate([(x[:100], labels[:100]), (x[100:], labels[100:])])
    after = nn.functional.nll_loss(uncertainty(x).probabilities.log(), labels)
    assert found == uncertainty.temperature > 1 and after < before


def test_regression_has_a_variance_of_the_residuals_scale() -> None:
    model = build(out=1)
    uncertainty = Uncertainty(model, task="regression")
    x = torch.randn(300, 6)
    found = uncertainty(x)
    torch.testing.assert_close(found.variance, found.spread.square())
    assert found.probabilities is found.entropy is found.mutual_information is None
    targets = found.mean + 3 * found.spread * torch.randn(300, 1)
    assert uncertainty.calibrate([(x, targets)]) == pytest.approx(3, rel=0.2)
    torch.testing.assert_close(uncertainty(x).variance, (uncertainty.scale * found.spread) ** 2)


def test_prediction_sets_hold_the_truth() -> None:
    pytest.importorskip("mapie", reason="prediction sets are made by MAPIE")
    model, draw = build(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        model[-1].weight.mul_(3)
    x = torch.randn(2400, 6, generator=draw)
    uncertainty = Uncertainty(model)
    labels = torch.multinomial(uncertainty(x).probabilities, 1, generator=draw)[:, 0]
    uncertainty.conformalise([(x[:1200], labels[:1200])], confidence=0.8)
    sets = uncertainty.sets(x[1200:])
    covered = sets.gather(1, labels[1200:, None]).double().mean()
    stderr = math.sqrt(0.8 * 0.2 * 2 / 1200)  # of the calibration set and of the test set
    assert sets.dtype == torch.bool and sets.shape == (1200, 3) and 4 * stderr < 0.07
    assert abs(float(covered) - 0.8) < 4 * stderr and 1 < sets.sum(1).double().mean() < 3

    values = Uncertainty(build(out=1), task="regression")
    targets = values(x).mean + torch.randn(2400, 1, generator=draw)
    values.conformalise([(x[:1200], targets[:1200])], confidence=0.8)
    low, high = values.sets(x[1200:]).unbind(1)
    inside = (low <= targets[1200:, 0]) & (targets[1200:, 0] <= high)
    assert abs(float(inside.double().mean()) - 0.8) < 4 * stderr


def test_without_the_library_prediction_sets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mapie", None)
    monkeypatch.setitem(sys.modules, "mapie.classification", None)
    uncertainty = Uncertainty(build())
    with pytest.raises(UsageError, match="MAPIE, which is not installed") as caught:
        uncertainty.conformalise([(torch.randn(60, 6), torch.randint(3, (60,)))])
    assert "cerewrite[conformal]" in caught.value.advice
    with pytest.raises(UsageError, match="no prediction sets yet"):
        uncertainty.sets(torch.randn(2, 6))


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                                 nn.Linear(64, 4))  # fmt: skip

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.net(x)
        return {"logits": z[:, :3], "value": z[:, 3:]}


def test_one_output_of_several_is_selected() -> None:
    model = cerewrite.convert(Several(), torch.ones(2, 6), members=2, estimator="analytic").model
    with pytest.raises(UsageError, match="2 floating-point tensors"):
        Uncertainty(model)(torch.ones(2, 6))
    found = Uncertainty(model, select=lambda output: output["logits"])(torch.ones(2, 6))
    assert found.probabilities.shape == (2, 3)


def test_what_cannot_be_calibrated_is_refused() -> None:
    uncertainty, x = Uncertainty(build()), torch.randn(60, 6)
    with pytest.raises(UsageError, match="unknown task"):
        Uncertainty(build(), task="ranking")
    with pytest.raises(RewriteError, match="not a rewritten model"):
        Uncertainty(nn.Linear(2, 2))
    with pytest.raises(TrainingError, match="49 validation examples are too few"):
        uncertainty.calibrate([(x[:49], torch.zeros(49))])
    with pytest.raises(TrainingError, match="no batches"):
        uncertainty.calibrate([])
    with pytest.raises(TrainingError, match="not a pair"):
        uncertainty.calibrate([x])
    right = uncertainty(x).probabilities.argmax(-1)
    with pytest.raises(TrainingError, match="no temperature is best"):
        uncertainty.calibrate([(x, right)])
    with pytest.raises(TrainingError, match="10 examples are too few for sets of confidence"):
        uncertainty.conformalise([(x[:10], right[:10])], confidence=0.95)
    with pytest.raises(UsageError, match=r"confidence 1\.5"):
        uncertainty.conformalise([(x, right)], confidence=1.5)
