"""What a plan forecasts is what an analysis of its result says, and what draws say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.estimators.exact_relu import exact_relu_nu
from cerewrite.nn import BlockDiagonalLinear
from tests.models import chain


class Concatenating(nn.Module):
    """Convolutions, one of which reads what two others wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
        self.c, self.d = nn.Conv2d(32, 24, 1), nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        z = self.c(torch.cat([y, self.b(y).relu()], 1)).relu()
        return self.head(self.d(z).relu().mean((2, 3)))


class Streaming(nn.Module):
    """A residual stream with branches of two hidden layers."""

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Linear(7, width, bias=False)
        self.first = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.third = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.head = nn.Linear(width, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for a, b, c in zip(self.first, self.second, self.third, strict=True):
            x = x + c(b(a(x).relu()).relu())
        return self.head(x)


def convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (3, 24, 24, 24):
        layers += [nn.Conv2d(inputs, 24, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))


CASES: dict[str, tuple[Any, Tensor]] = {
    "dense": (lambda: chain([48] * 4), torch.ones(2, 7)),
    "convolutions": (convolutions, torch.ones(2, 3, 2, 2)),
    "concatenation": (Concatenating, torch.ones(2, 3, 1, 1)),
    "stream": (Streaming, torch.ones(2, 7)),
}
PLANS = [
    ("dense", "block", "folded"),
    *(
        pytest.param(*more, marks=pytest.mark.thorough)
        for more in (
            ("dense", "block", "explicit"),
            ("convolutions", "block", "folded"),
            ("concatenation", "block", "folded"),
            ("stream", "block", "folded"),
            ("stream", "network", "folded"),
        )
    ),
]


def rewritten(name: str, scope: str, exit_scale: str) -> tuple[cerewrite.Plan, nn.Module, Tensor]:
    torch.manual_seed(0)
    make, x = CASES[name]
    model = make()
    found = cerewrite.analyze(model, x, gain="he", scope=scope, estimator="analytic")
    plan = cerewrite.plan(found, budget="params", exit_scale=exit_scale)
    assert plan.splits
    return plan, cerewrite.apply(plan, model, init="he"), x


@pytest.mark.parametrize(("name", "scope", "exit_scale"), PLANS)
def test_the_plans_forecast_is_the_analysis_of_its_result_and_what_draws_say(
    name: str, scope: str, exit_scale: str
) -> None:
    plan, model, x = rewritten(name, scope, exit_scale)
    for seen in ("block", "network"):
        found = cerewrite.analyze(model, x, gain="he", scope=seen, estimator="analytic")
        # widths that differ by class move the shares f of the kernel a little
        assert found.leading_order.value == pytest.approx(plan.planned.leading_order, rel=0.08)
        assert found.log_variance.value == pytest.approx(plan.planned.log_variance, rel=0.12)
        assert found.nu.value == pytest.approx(plan.planned.nu, rel=0.15)
    draws = cerewrite.analyze(model, x, gain="he", estimator="monte-carlo", draws=500)
    spread = draws.log_variance
    assert spread.stderr is not None and 4 * spread.stderr < 0.4 * spread.value
    band = 4 * spread.stderr + 0.1 * spread.value
    assert abs(found.log_variance.value - spread.value) < band
    assert {layer.name for layer in found.layers} == {
        name for name, module in model.named_modules() if "weight" in module._parameters
    }


def test_without_members_the_law_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: existing groups are no members."""
    monkeypatch.setattr("cerewrite.analysis.existing.bundles", lambda _: ())
    plan, model, x = rewritten("concatenation", "block", "folded")
    found = cerewrite.analyze(model, x, gain="he", estimator="analytic")
    assert found.nu.value < 0.85 * plan.planned.nu


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["monte-carlo", "jackknife"])
def test_block_diagonal_layers_are_drawn_and_gated(estimator: str) -> None:
    plan, model, x = rewritten("dense", "block", "folded")
    draws = 500 if estimator == "monte-carlo" else 48  # the errors are of the level
    found = cerewrite.analyze(model, x, gain="he", estimator=estimator, draws=draws)
    assert found.log_variance.stderr is not None
    band = 4 * found.log_variance.stderr + 0.15 * plan.planned.log_variance
    assert abs(found.log_variance.value - plan.planned.log_variance) < band
    assert band < 0.6 * plan.planned.log_variance
    assert sum(layer.kappa > 0 for layer in found.layers) == 4


@pytest.mark.parametrize("groups", [4, 8])
@pytest.mark.parametrize("estimator", ["analytic", "jackknife"])
def test_existing_groups_are_narrow_members(groups: int, estimator: str) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 1, bias=False), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(64, 64, 1, groups=groups, bias=False), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1, bias=False)]
    options = {} if estimator == "analytic" else {"draws": 40}
    model, x = nn.Sequential(*layers), torch.ones(1, 3, 1, 1)
    found = cerewrite.analyze(model, x, gain="he", estimator=estimator, **options)
    exact = exact_relu_nu([64 // groups] * 4, multiplicity=groups)
    error = 0.0 if found.nu.stderr is None else found.nu.stderr
    assert abs(found.nu.value - exact) < 0.1 * exact + 3 * error
    assert 0.1 * exact + 3 * error < 0.6 * exact
    assert found.nu.value > 1.25 * exact_relu_nu([64] * 4)


def test_groups_inside_a_region_are_narrow_too() -> None:
    """A stage whose stream is dense and whose branches have groups."""
    torch.manual_seed(0)
    found = {}
    for groups in (1, 8):

        class Grouped(nn.Module):
            def __init__(self, groups: int = groups) -> None:
                super().__init__()
                self.stem = nn.Conv2d(3, 32, 1)
                self.a, self.b = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1, groups=groups)
                self.c, self.head = nn.Conv2d(32, 32, 1), nn.Linear(32, 2)

            def forward(self, x: Tensor) -> Tensor:
                x = self.stem(x).relu()
                y = x + self.c(self.b(self.a(x).relu()).relu())
                return self.head(y.mean((2, 3)))

        net, x = Grouped(), torch.ones(1, 3, 1, 1)
        block = cerewrite.analyze(net, x, gain="he", scope="block", estimator="analytic")
        network = cerewrite.analyze(net, x, gain="he", scope="network", estimator="analytic")
        assert [r.region.multiplicity for r in block.regions] == [groups]
        assert [r.region.multiplicity for r in network.regions] == [1]
        assert network.nu.value == pytest.approx(block.nu.value, rel=0.05)
        found[groups] = network.nu.value
    assert found[8] > 1.1 * found[1]


def test_exact_relu_knows_members() -> None:
    plan, model, x = rewritten("dense", "block", "explicit")
    (split,) = plan.splits
    found = cerewrite.analyze(model, x, gain="he", estimator="exact-relu")
    exact = exact_relu_nu(split.widths, multiplicity=split.multiplicity)
    assert found.nu.value == pytest.approx(exact)


def test_exact_relu_refuses_members_that_do_not_span_all_layers() -> None:
    model = nn.Sequential(
        nn.Linear(4, 8, bias=False), nn.ReLU(), BlockDiagonalLinear(8, 8, 2, bias=False),
        nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False),
    )  # fmt: skip
    with pytest.raises(cerewrite.AnalysisError, match="groups"):
        cerewrite.analyze(model, torch.ones(1, 4), gain="he", estimator="exact-relu")


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_norms_of_members_have_a_closed_form(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (7, 64, 64):
        layers += [nn.Linear(inputs, 64), norm(64), nn.GELU()]
    model, x = nn.Sequential(*layers, nn.Linear(64, 2)), torch.ones(2, 7)
    plan = cerewrite.plan(
        cerewrite.analyze(model, x, gain="he", estimator="analytic"), budget="params"
    )
    found = cerewrite.analyze(
        cerewrite.apply(plan, model, init="he"), x, gain="he", estimator="analytic"
    )
    assert found.log_variance.value == pytest.approx(plan.planned.log_variance, rel=0.05)
    assert found.nu.value == pytest.approx(plan.planned.nu, rel=0.2)
