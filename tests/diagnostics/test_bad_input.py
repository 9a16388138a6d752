"""Wrong inputs are typed errors, and what has no value here is a gap with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
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
    (finding,) = cerewrite.diagnose(silent, torch.randn(4, 5), only=["local-map"], draws=0).findings
    assert finding.notes == ("no local map: 0 (no unit is active)",)


def test_without_data_that_is_said_and_gaussian_only_by_request() -> None:
    model, x, _, _ = case("mlp")
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


def test_what_a_diagnostic_s_own_run_raises_is_its_gap() -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 2])
    found = cerewrite.diagnose(net, x, y, draws=0)
    assert gaps(found)["zico"].startswith("the model raises on 1 examples")
    assert "gradient-norm" not in gaps(found)

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)).view(8, 6))

    _, x, y, _ = case("mlp")
    found = cerewrite.diagnose(Fixed(), x.float(), y, draws=0)
    for name in ("kernel-drift", "synflow", "zico"):
        assert "is invalid for input of size" in gaps(found)[name]
    assert "curvature" not in gaps(found)


def test_outputs_in_a_data_class() -> None:
    @dataclass
    class Output:
        logits: Tensor

    class Wrapped(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Output:
            return Output(self.net(x))

    model, x, y, _ = case("mlp")
    names = ["curvature", "gradient-confusion", "kernel-drift", "zico"]
    plain = cerewrite.diagnose(model, x, y, draws=0, only=names)
    found = cerewrite.diagnose(Wrapped(model), x, y, draws=0, only=names)
    assert [f.figures[0].value for f in found.findings] == pytest.approx(
        [f.figures[0].value for f in plain.findings], rel=1e-9
    )
    drift = "drift at scale 4"
    assert found.value("kernel-drift", drift) == pytest.approx(plain.value("kernel-drift", drift))


def test_fused_attention_has_a_curvature() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(5, 8) for _ in range(3))
            self.out = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (m(x).unflatten(-1, (2, 4)).transpose(1, 2) for m in (self.q, self.k, self.v))
            mixed = F.scaled_dot_product_attention(q, k, v)
            return self.out(mixed.transpose(1, 2).flatten(2).mean(1))

    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 5), torch.tensor([0, 1, 2, 0])
    found = cerewrite.diagnose(Attention(), x, y, draws=0, only=["curvature"])
    assert found.findings and not found.gaps


class ByKeyword(nn.Linear):
    """A layer that calls by keyword."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input=input, weight=self.weight, bias=self.bias)


def test_a_layer_that_calls_by_keyword() -> None:
    torch.manual_seed(0)
    named = nn.Sequential(ByKeyword(5, 6), nn.ReLU(), ByKeyword(6, 3))
    plain = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    plain.load_state_dict(named.state_dict())
    x = torch.randn(4, 5)
    values = [
        cerewrite.diagnose(net, x, draws=0, only=["local-map"]).findings[0].figures
        for net in (named, plain)
    ]
    assert values[0] == values[1]


def test_nothing_behind_an_activation_in_place_counts() -> None:
    x = torch.randn(8, 5)
    values = []
    for inplace in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace), nn.BatchNorm1d(8), nn.Linear(8, 3))
        values.append(cerewrite.diagnose(net, x, draws=0, only=["local-map"]).findings[0].figures)
    assert values[0] == values[1]
