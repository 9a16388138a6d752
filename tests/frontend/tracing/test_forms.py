"""What can be written in several ways is one operator for the rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.export_rung import export_ops
from cerewrite.frontend.tracing.ladder import RECORDER, Frontend
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.symbolic_rung import symbolic_ops


class ByHand(nn.Module):
    """A norm with a scale, as a function of the value."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.function(x)


def rms(x: Tensor) -> Tensor:
    return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x)


def rms_as_quotient(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6)


def rms_by_second_names(x: Tensor) -> Tensor:
    below = torch.sqrt(torch.multiply(x, x).mean(dim=-1, keepdim=True) + 1e-6)
    return torch.true_divide(x, below)


def layer(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6)


def layer_by_variance(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-6)


def network(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), norm, nn.GELU(), nn.Linear(16, 16), nn.Linear(16, 3))


@pytest.mark.parametrize(
    ("function", "stock"),
    [
        (rms, nn.RMSNorm),
        (rms_as_quotient, nn.RMSNorm),
        (rms_by_second_names, nn.RMSNorm),
        (layer, nn.LayerNorm),
        (layer_by_variance, nn.LayerNorm),
    ],
)
def test_norms_by_hand_are_norms(
    function: Callable[[Tensor], Tensor], stock: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 5)
    found, same = (
        cerewrite.analyze(network(norm), x, gain="he", estimator="analytic")
        for norm in (ByHand(function), stock(16))
    )
    assert found.nu.value == pytest.approx(same.nu.value, rel=1e-6)
    assert found.leading_order.value == pytest.approx(same.leading_order.value, rel=1e-6)


def other_axis(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(0, keepdim=True) + 1e-6)


def other_root(x: Tensor) -> Tensor:
    return x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def other_power(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("function", [other_root, other_power])
def test_what_only_looks_like_a_norm_is_none(function: Callable[[Tensor], Tensor]) -> None:
    ops = trace(network(ByHand(function)), torch.ones(2, 5)).ops
    assert not {"rms_direction", "centred_direction"} & {op.target for op in ops}


class BySingleNumber(nn.Module):
    """A gate, a turn there and back, and a quotient by the root of a number without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(5, 16), nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.multiply(self.first(x), torch.sigmoid(self.gate(x)))
        y = y.swapdims(0, 1).swapaxes(0, 1)
        return self.last(torch.divide(y, torch.sqrt(torch.tensor(4.0).mean(dim=-1, keepdim=True))))


@pytest.mark.parametrize("rung", [recorded_ops, symbolic_ops, export_ops])
def test_second_names_are_followed(rung: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cerewrite.frontend.tracing.ladder.LADDER", ((RECORDER, rung),))
    traced = trace(BySingleNumber(), torch.ones(2, 5))
    assert [(w.size, w.pins, w.writers) for w in traced.widths[:1]] == [(16, (), ("first", "gate"))]


def test_a_norm_over_positions_has_no_closed_form() -> None:
    with pytest.raises(cerewrite.AnalysisError, match="norm over positions"):
        cerewrite.analyze(
            network(ByHand(other_axis)), torch.ones(2, 5), gain="he", estimator="analytic"
        )


def test_an_empty_operand_of_a_concatenation_is_left_out() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([torch.tensor([]), self.a(x)], dim=-1))

    traced = trace(Cached(), torch.ones(2, 5))
    assert not any(op.target == "cat" for op in traced.ops)
    assert cerewrite.analyze(Cached(), torch.ones(2, 5), estimator="analytic").nu.value > 0


class Deciding(nn.Module):
    def __init__(self, decide: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.decide, self.a, self.b = decide, nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.decide(self.a(x).relu()))


PASSED: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda y: y.sort(0)[0],
    "argsort": lambda y: y.gather(0, y.argsort(0)),
    "mask": lambda y: y * (torch.arange(8) < 20),
    "constant": lambda y: y * torch.tensor(2.0),
    "counts": lambda y: y * torch.bincount(torch.arange(8)),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_carries_no_kernel_stops_nothing(name: str) -> None:
    x = torch.ones(2, 5)
    plain = cerewrite.analyze(Deciding(nn.Identity()), x, gain="he", estimator="analytic").nu.value
    assert cerewrite.analyze(
        Deciding(PASSED[name]), x, gain="he", estimator="analytic"
    ).nu.value == pytest.approx(plain)


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "one_hot": lambda y: y * nn.functional.one_hot(y.argmax(1), 8).float(),
    "cumsum": lambda y: y.cumsum(1),
    "topk": lambda y: y.topk(8, 1)[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_carries_a_kernel_and_has_no_rule_is_measured(name: str) -> None:
    model, x = Deciding(REFUSED[name]), torch.rand(2, 5)
    with pytest.raises(cerewrite.AnalysisError, match="no closed form"):
        cerewrite.analyze(model, x, estimator="analytic")
    for estimator in ("monte-carlo", "jackknife"):
        found = cerewrite.analyze(model, x, gain="he", estimator=estimator, draws=12)
        assert found.nu.value > 0.05, estimator
