"""Wrong inputs are typed errors, and what has no value here is a gap with its reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import AnalysisError, UsageError
from tests.diagnostics.nets import case


def gaps(found: cerewrite.ir.diagnosed.Diagnosis) -> dict[str, str]:
    return {gap.where: gap.reason for gap in found.gaps}


def test_a_loss_that_is_not_scalar() -> None:
    model, x, y, _ = case("mlp")
    for loss in (lambda z, t: z.sum(1), lambda z, t: None, lambda z, t: (z.sum(), z.sum())):
        with pytest.raises(UsageError, match="not a scalar"):
            cerewrite.diagnose(model, x, y, loss=loss, draws=0)
    with pytest.raises(UsageError, match="the loss raises: ValueError: my own"):
        cerewrite.diagnose(model, x, y, loss=_raising, draws=0)
    with pytest.raises(UsageError, match="depends on no parameter"):
        cerewrite.diagnose(model, x, y, loss=lambda z, t: z.detach().sum(), draws=0)


def _raising(outputs: Tensor, targets: Tensor) -> Tensor:
    raise ValueError("my own")


@pytest.mark.parametrize("wrong", [3, -1, 255])
def test_labels_out_of_range(wrong: int) -> None:
    model, x, y, _ = case("mlp")
    y[2] = wrong
    with pytest.raises(UsageError, match="the model has 3 outputs"):
        cerewrite.diagnose(model, x, y, draws=0)


def test_targets_that_do_not_fit() -> None:
    model, x, y, _ = case("mlp")
    for targets in (y[:5], torch.zeros(()), torch.randn(8, 4), torch.zeros(8, 2).long()):
        with pytest.raises(UsageError, match=r"targets|classes"):
            cerewrite.diagnose(model, x, targets, draws=0)
    with pytest.raises(UsageError, match="the targets are a list"):
        cerewrite.diagnose(model, x, [0] * 8, draws=0)


def test_an_unknown_name_number_or_kind_of_data() -> None:
    model, x, y, _ = case("mlp")
    with pytest.raises(UsageError, match="did you mean 'zico'"):
        cerewrite.diagnose(model, x, y, only=["zicco"])
    for options in ({"draws": -1}, {"draws": 1.5}, {"seed": -3}, {"data": "random"}):
        with pytest.raises(UsageError):
            cerewrite.diagnose(model, x, y, **options)


def test_a_batch_of_one_is_a_gap_where_two_are_needed() -> None:
    model, x, y, _ = case("mlp")
    found = gaps(cerewrite.diagnose(model, x[:1], y[:1], draws=0))
    needing = {"gradient-confusion", "zico", "naswot", "kernel-drift", "variance-constancy"}
    assert needing <= set(found)
    assert found["zico"] == "it needs 2 examples, and the batch has 1"
    with pytest.raises(AnalysisError, match="raises on 1 examples"):
        model, x, y, _ = case("residual_cnn")
        cerewrite.diagnose(model, x[:1, :, :1, :1], y[:1], draws=0, only=["naswot"])


def test_layers_without_a_local_map() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w.T

    found = cerewrite.diagnose(Own(), torch.randn(4, 5), only=["local-map"], draws=0)
    assert "no linear or convolution module runs" in gaps(found)["local-map"]
    silent = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        silent[0].bias.fill_(-100.0)
    (finding,) = cerewrite.diagnose(
        silent, torch.randn(4, 5), only=["local-map"], draws=0
    ).findings
    assert finding.notes == ("no local map: 0 (no unit is active)",)


def test_without_data_that_is_said_and_gaussian_only_by_request() -> None:
    model, x, y, _ = case("mlp")
    shapes = cerewrite.diagnose(model, x, draws=0, data="shapes")
    assert {f.diagnostic for f in shapes.findings} == {
        "capacity", "kernel-measures", "residual-kernel", "synflow"
    }  # fmt: skip
    assert "only shapes were given" in gaps(shapes)["zico"]
    unlabelled = gaps(cerewrite.diagnose(model, x, draws=0))
    assert unlabelled["zico"] == "it needs a loss, and no targets were given"
    assert "naswot" not in unlabelled
    gaussian = cerewrite.diagnose(torch.nn.Sequential(*model), x, draws=0, data="gaussian")
    assert gaussian.data == "gaussian" and gaussian.labelled
    other = cerewrite.diagnose(model, 0 * x, draws=0, data="gaussian")
    assert other.value("zico", "score") == gaussian.value("zico", "score")


def test_a_model_that_is_dead_or_blown_up() -> None:
    model, x, y, _ = case("mlp")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    found = gaps(cerewrite.diagnose(model, x, y, draws=0))
    assert found["synflow"] == "the flow is 0"
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(AnalysisError, match="the loss is nan"):
        cerewrite.diagnose(model, x, y, draws=0)


def test_a_model_without_a_redraw_is_looked_at_as_it_stands() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = nn.Parameter(torch.eye(5))
            self.body = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.einsum("bf,fg->bg", x, self.mixing))

    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    assert cerewrite.diagnose(Own(), x, y, draws=0, only=["gradient-norm"]).findings
