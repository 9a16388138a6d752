"""The spatial factor in closed form: its limits, Monte-Carlo, and refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption, LayerCorrection
from cerewrite.frontend.tracing import trace

FAULT_SEEDS = 12


def chain(*, norm: bool = False, kernel: int = 3, pool: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 3
    for _ in range(2):
        conv = nn.Conv2d(width, 16, kernel, padding=kernel // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(16) if norm else nn.Identity(), nn.ReLU()]
        layers += [pool] if pool is not None and width == 3 else []
        width = 16
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(16, 2, bias=False))


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


def measured(model: nn.Module, x: Tensor, draws: int = 400, **options: Any) -> tuple[float, float]:
    assumption = Assumption(gain=2.0, draws=draws, seed=3, **options)
    nu = ESTIMATORS["monte-carlo"].estimate(trace(model, x), model, x, assumption).nu
    assert nu is not None and nu.stderr is not None
    return nu.value, nu.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["white", "smooth", "constant"])
def test_it_is_monte_carlos_nu(kind: str) -> None:
    model, x = chain(), maps(kind)
    (nu, error), flat = measured(model, x, 800), composed(layers_of(model, x, "analytic"))
    found = composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.1 + 2.5 * error / nu)
    if kind == "white":
        assert flat > 1.5 * nu


@pytest.mark.thorough
def test_batch_norms_hold_what_a_batch_shares() -> None:
    model, x = chain(norm=True), maps("smooth", 8)
    (nu, error), found = measured(model, x), composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.3)
    assert composed(layers_of(model, x, "analytic")) > 1.6 * nu


@pytest.mark.thorough
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)])
@pytest.mark.parametrize("norm", [False, True])
def test_maxima_over_windows(pool: nn.Module, norm: bool) -> None:
    model, x = chain(norm=norm, pool=pool), maps("white", 4)
    (nu, error), found = measured(model, x), composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.15 + 2.5 * error / nu)
    assert composed(layers_of(model, x, "analytic")) > 1.25 * nu


def test_a_stem_needs_no_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = chain(pool=nn.MaxPool2d(2)), maps("smooth", 1)
    whole = layers_of(model, x)
    monkeypatch.setattr("cerewrite.estimators.maps.stem.POINTS", 9)
    monkeypatch.setattr("cerewrite.estimators.maps.walk.POINTS", 9)
    for small, large in zip(layers_of(model, x), whole, strict=True):
        assert small.kappa == pytest.approx(large.kappa, rel=0.12, abs=1e-4)


@pytest.mark.thorough
def test_a_stem_of_a_large_map_is_monte_carlos() -> None:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU())
    body = nn.Sequential(nn.MaxPool2d(3, 3), nn.Conv2d(12, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
    model = nn.Sequential(stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(4, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    (nu, error), found = measured(model, x, 250), composed(layers_of(model, x))
    assert error < 0.15 * nu
    assert found == pytest.approx(nu, rel=0.2 + error / nu)


@pytest.mark.thorough
def test_running_statistics_scale_by_a_constant() -> None:
    model, x = chain(norm=True), maps("smooth")
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    norm.running_var.fill_(0.25)
    nu, error = measured(model, x, norms="eval")
    found = composed(layers_of(model, x, norms="eval"))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.1 + 2.5 * error / nu)
    assert found == pytest.approx(composed(layers_of(chain(), x)), rel=0.12)
    assert found > 1.3 * composed(layers_of(model, x))


@pytest.mark.thorough
def test_shifts_of_norms_are_taken_as_alike() -> None:
    model, x = chain(norm=True), maps("white", 8)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.bias.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    (nu, error), found = measured(model, x), composed(layers_of(model, x))
    assert error < 0.12 * nu
    assert found == pytest.approx(nu, rel=0.4)
    assert composed(layers_of(model, x, "analytic")) > 2 * nu
    with pytest.raises(AnalysisError, match="parameters of its own in the standard"):
        layers_of(model, x, parametrization="standard")


def test_only_the_first_output_is_read() -> None:
    model, x = chain(), maps("white")
    assert layers_of(model, x, readout=":1") == layers_of(model, x)
    with pytest.raises(AnalysisError, match="first output, the read-out asks for 'aux:1'"):
        layers_of(model, x, readout="aux:1")


def test_constant_maps_have_a_factor_of_one() -> None:
    factors = [at.rho for at in layers_of(chain(kernel=1), maps("constant"))]
    assert factors == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    white = [at.rho for at in layers_of(chain(kernel=1), maps("white"))]
    assert max(white[:2]) < 0.8


@pytest.mark.thorough
def test_a_planted_fault_is_caught() -> None:
    model, x = chain(kernel=1), maps("constant")[:, :, :2, :2].contiguous()
    factors = [[at.rho for at in layers_of(model, x, seed=seed)[:2]] for seed in range(FAULT_SEEDS)]
    rho = torch.tensor(factors).mean(1)
    error = float(rho.std() / FAULT_SEEDS**0.5)
    assert 4 * error < 0.05
    assert abs(float(rho.mean()) - 1) < 3 * error
    assert abs(1.05 * float(rho.mean()) - 1) > 3 * error


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
    with pytest.raises(AnalysisError, match="'adaptive_max_pool2d' has no rule for maps"):
        layers_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveMaxPool2d(2), nn.Conv2d(8, 2, 1)), x)
    with pytest.raises(AnalysisError, match="depthwise"):
        layers_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)), x)
    with pytest.raises(AnalysisError, match="two examples"):
        layers_of(chain(norm=True), x[:1])
