"""The spatial factor in closed form: its limits, Monte-Carlo, and refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption, LayerCorrection
from cerewrite.tracer import trace


def chain(*, norm: bool = False, kernel: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 3
    for _ in range(2):
        conv = nn.Conv2d(width, 16, kernel, padding=kernel // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(16) if norm else nn.Identity(), nn.ReLU()]
        width = 16
    pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, nn.Linear(16, 2, bias=False))


def maps(kind: str, examples: int = 4) -> Tensor:
    x = torch.randn(examples, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    if kind == "smooth":
        x = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), 3, 1)
    if kind == "constant":
        x = x[:, :, :1, :1].expand(-1, -1, 6, 6).contiguous()
    return x / x.pow(2).mean((1, 2, 3), keepdim=True).sqrt()


def layers_of(
    model: nn.Module, x: Any, name: str = "spatial", **options: Any
) -> tuple[LayerCorrection, ...]:
    found = ESTIMATORS[name].estimate(trace(model, x), model, x, Assumption(gain=2.0, **options))
    return found.layers


def composed(layers: tuple[LayerCorrection, ...]) -> float:
    nu = 1.0
    for layer in layers:
        nu *= 1 + layer.kappa
    return nu - 1


def measured(model: nn.Module, x: Tensor) -> tuple[float, float]:
    assumption = Assumption(gain=2.0, draws=800, seed=3)
    nu = ESTIMATORS["monte-carlo"].estimate(trace(model, x), model, x, assumption).nu
    assert nu is not None and nu.stderr is not None
    return nu.value, nu.stderr


@pytest.mark.parametrize("kind", ["white", "smooth", "constant"])
def test_it_is_monte_carlos_nu(kind: str) -> None:
    model, x = chain(), maps(kind)
    (nu, error), flat = measured(model, x), composed(layers_of(model, x, "analytic"))
    found = composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.1 + 2.5 * error / nu)
    if kind == "white":
        assert flat > 1.5 * nu


def test_batch_norms_hold_what_a_batch_shares() -> None:
    model, x = chain(norm=True), maps("smooth", 8)
    (nu, error), found = measured(model, x), composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.3)
    assert composed(layers_of(model, x, "analytic")) > 1.6 * nu


def test_constant_maps_have_a_factor_of_one() -> None:
    factors = [at.rho for at in layers_of(chain(kernel=1), maps("constant"))]
    assert factors == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    white = [at.rho for at in layers_of(chain(kernel=1), maps("white"))]
    assert max(white[:2]) < 0.8


def test_residual_streams_share_a_factor() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 1, bias=False)
            self.up = nn.Conv2d(16, 16, 1, bias=False)
            self.down = nn.Conv2d(16, 16, 1, bias=False)
            self.head = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.down(self.up(x).relu())
            y: Tensor = self.head(x.mean((2, 3)))
            return y

    model, x = Residual(), maps("constant")
    factors = [at.rho for at in layers_of(model, x)]
    assert factors == pytest.approx([1.0] * 4, abs=0.12)
    assert factors[0] == factors[2]


def test_the_same_seed_gives_the_same_factors() -> None:
    model, x = chain(), maps("white")
    assert layers_of(model, x) == layers_of(model, x)
    assert layers_of(model, x) != layers_of(model, x, seed=1)


def test_refusals_say_why() -> None:
    model, x = chain(), maps("white")
    traced, estimate = trace(model, x), ESTIMATORS["spatial"].estimate
    for wrong, why in (
        (None, "one batch of maps"),
        (torch.zeros(2, 3, 6, 6), "is zero"),
        (x * float("nan"), "not finite"),
    ):
        with pytest.raises(AnalysisError, match=why):
            estimate(traced, model, wrong, Assumption())
    large = torch.randn(1, 3, 40, 40)
    with pytest.raises(AnalysisError, match="too large"):
        layers_of(model, large)
    with pytest.raises(AnalysisError, match="no rule for maps"):
        layers_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)), x)
    with pytest.raises(AnalysisError, match="two examples"):
        layers_of(chain(norm=True), x[:1])
