"""What starts at zero, woken: the same network for the closed form, for draws and for plans."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import ZeroKernelError
from cerewrite.estimators.awake import awake
from cerewrite.frontend import tracing

X = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))


class Branch(nn.Module):
    """A residual branch with what is tried at its end."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner, self.outer = kind, nn.Linear(12, 24), nn.Linear(24, 12)
        self.norm = nn.LayerNorm(12)
        self.scale = nn.Parameter(torch.full((12,), 1e-6))
        self.alpha = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.norm.weight)
        if kind == "weights":
            nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.outer(torch.relu(self.inner(x)))
        if self.kind == "layer scale":
            return x + self.scale.view(1, 12) * y
        if self.kind == "addcmul":
            return torch.addcmul(x, self.scale, y)
        if self.kind == "rezero":
            return x + y * self.alpha
        return x + (self.norm(y) if self.kind == "norm" else y)


KINDS = ("weights", "norm", "layer scale", "addcmul", "rezero")


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 12), Branch(kind), Branch(kind), nn.ReLU(), nn.Linear(12, 4))


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS[1:])]
)
def test_closed_form_and_draws_see_the_same_network(kind: str) -> None:
    model = network(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    closed, drawn, asleep = (
        cerewrite.analyze(model, X, estimator=estimator, gain=gain, draws=draws)
        for estimator, gain, draws in (
            ("analytic", "nonzero", None),
            ("monte-carlo", "nonzero", 500),
            ("analytic", "as-built", None),
        )
    )
    measured = drawn.measures.log_variance
    assert measured.stderr < 0.12 * measured.value  # the resolution of what follows
    found = closed.measures.log_variance.value
    assert abs(found - measured.value) < 3 * measured.stderr + 0.1 * measured.value
    # Where nothing is woken, the branches count for nothing.
    kappa, woken = (
        next(x.kappa for x in one.layers if x.name == "1.inner") for one in (asleep, closed)
    )
    assert kappa < 1e-4 * woken
    assert any("at He's gain" in text for text in closed.assumptions)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("estimator", ["analytic", "monte-carlo", "jackknife", "auto"])
def test_a_read_out_of_zeros_is_an_error_with_the_remedy(estimator: str) -> None:
    model = network("none")
    nn.init.zeros_(model[-1].weight)
    draws = {} if estimator == "analytic" else {"draws": 16}
    with pytest.raises(ZeroKernelError) as met:
        cerewrite.analyze(model, X, estimator=estimator, **draws)
    assert "--gain nonzero" in met.value.advice
    awoken = cerewrite.analyze(model, X, estimator=estimator, gain="nonzero", **draws)
    assert awoken.nu.value > 0


@pytest.mark.thorough
def test_a_read_out_of_zeros_is_converted_awake() -> None:
    layers = [nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)]
    model = nn.Sequential(*layers)
    nn.init.zeros_(model[-1].weight)
    result = cerewrite.convert(model, X, draws=16, allow="all")
    assert result.plan.gain == "nonzero" and "tangent kernel" in result.plan.note
    assert result.plan.splits and result.verification.passed
    assert result.report.promise is not None and not result.report.promise.refused
    again = cerewrite.convert(model, X, plan=result.plan)
    assert again.plan.splits == result.plan.splits


def test_what_does_not_start_at_zero_stays() -> None:
    model = network("none")
    for branch in (model[1], model[2]):
        nn.init.constant_(branch.norm.weight, 0.1)
    traced = tracing.trace(model, (X,))
    assert awake(traced, model) == (traced, model, "")
