"""Failures met on models that nobody here had seen, in their smallest form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import CerewriteError, PlanError, RewriteError
from tests.models import chain

X = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))


class Masked(nn.Module):
    """Keeps a plain tensor, and looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain([32, 32, 32], bias=True, inputs=12, outputs=5)
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = torch.ones(x.shape)
        return self.body(x * self.mask) if float(self.mask.sum()) > 0 else self.body(x)


@pytest.mark.parametrize("calls", [0, 1])
def test_a_tensor_kept_as_a_plain_attribute(calls: int) -> None:
    """What the first try of the recorder left there had no values for the second."""
    model = Masked()
    for _ in range(calls):
        model(X)
    before = model.mask
    assert cerewrite.analyze(model, (X,), estimator="analytic").regions
    assert model.mask is before


class Heads(nn.Module):
    """A policy and a value, of one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.policy = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))
        self.value = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.trunk(x)
        return self.policy(h), self.value(h)


class Shown(Heads):
    """Returns what leads to its outputs too."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.trunk(x)
        return self.policy(h), h, x, self.value(h)


@pytest.mark.parametrize("kind", [Heads, Shown])
@pytest.mark.parametrize("estimator", ["analytic", "jackknife"])
def test_all_outputs_count(kind: type[nn.Module], estimator: str) -> None:
    """The second head's width had no correction: the region was refused as starting at zero."""
    torch.manual_seed(0)
    model = kind()
    report = cerewrite.analyze(model, (X,), estimator=estimator, gain="he", draws=2)
    kappas = {layer.name: layer.kappa for layer in report.layers}
    assert kappas["policy.0"] > 0 and kappas["value.0"] > 0
    if kind is Heads:  # the other shows its trunk
        assert cerewrite.plan(report, allow="all").splits


@pytest.mark.thorough
def test_the_kernel_of_two_outputs_is_that_of_draws() -> None:
    """nu in closed form, against 3,000 draws: four standard errors are a fifth of it."""
    torch.manual_seed(0)
    model = Heads()
    closed = cerewrite.analyze(model, (X,), estimator="analytic", gain="he").nu.value
    drawn = cerewrite.analyze(model, (X,), estimator="monte-carlo", gain="he", draws=3000).nu
    assert drawn.stderr is not None and 4 * drawn.stderr < 0.3 * drawn.value
    assert abs(closed - drawn.value) < 4 * drawn.stderr


class Insists(nn.Module):
    """Compares its channels with the number it was built with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.layer = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return self.layer(x)


class Raises(Insists):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) != self.channels:
            raise ValueError(f"expected {self.channels} channels")
        return self.layer(x)


@pytest.mark.parametrize("kind", [Insists, Raises])
def test_a_forward_that_insists_on_its_width_is_refused(kind: type[Insists]) -> None:
    layers = [nn.Linear(12, 32), nn.ReLU(), kind(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    with pytest.raises(RewriteError, match="refuses other widths in a forward of its own") as met:
        cerewrite.convert(model, (X,), estimator="analytic", allow="all")
    assert "--exclude" in met.value.advice and "bug" not in str(met.value)
    assert "in forward" in met.value.message


class Scaled(nn.Module):
    """A residual branch that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(32, 64), nn.Linear(64, 32)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.relu(self.inner(x)))


def zero_branches() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), Scaled(), Scaled(), nn.ReLU(), nn.Linear(32, 4))


def test_auto_gives_the_advice_that_works() -> None:
    """The block scope's error hid it: there is no region there."""
    model = zero_branches()
    with pytest.raises(PlanError) as met:
        cerewrite.plan(
            cerewrite.analyze(model, (X,), estimator="analytic", scope="auto"), allow="all"
        )
    assert "--gain nonzero" in met.value.advice


@pytest.mark.parametrize("scope", ["auto", "network"])
def test_branches_that_start_at_zero_are_planned_awake(scope: str) -> None:
    model = zero_branches()
    result = cerewrite.convert(model, (X,), estimator="analytic", scope=scope, allow="all")
    assert result.plan.splits and result.verification.passed
    assert result.plan.gain == "nonzero" and "at gain nonzero" in result.plan.note


@pytest.mark.parametrize("scope", ["auto", "network"])
def test_no_other_scope_is_advised_after_all(scope: str) -> None:
    shared = nn.Linear(12, 12)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), shared)
    with pytest.raises(CerewriteError) as met:
        cerewrite.convert(model, (X,), estimator="analytic", scope=scope)
    assert "scope" not in met.value.advice


class Graph(nn.Module):
    """Graph convolutions: an adjacency from the left mixes nodes, not channels."""

    def __init__(self, batched: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, 48) for n in (12, 48, 48))
        self.head = nn.Linear(48, 4)
        self.product = torch.bmm if batched else torch.mm

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(self.product(adjacency, layer(x)))
        return self.head(x).log_softmax(-1)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_an_adjacency_mixes_positions_alone(lead: tuple[int, ...]) -> None:
    model = Graph(batched=bool(lead))
    inputs = (torch.randn(*lead, 7, 12), torch.rand(*lead, 7, 7))
    result = cerewrite.convert(model, inputs, estimator="analytic", allow="all")
    (split,) = result.plan.splits
    assert split.multiplicity > 1 and len(split.widths) == 3 and result.verification.passed


@pytest.mark.parametrize(("factor", "measured"), [(1.0, True), (1e6, False)])
def test_a_gain_beyond_belief_is_measured(
    monkeypatch: pytest.MonkeyPatch, factor: float, measured: bool
) -> None:
    monkeypatch.setattr("cerewrite.api.promise.BELIEVED", factor)
    model = chain([32, 32, 32], bias=True, inputs=12, outputs=5)
    result = cerewrite.convert(model, (X,), estimator="analytic", allow="all", draws=4)
    assert result.plan.splits
    assert (result.report.promise is not None) == measured
