from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Analysis
from tests.models import chain


def analysed(model: nn.Module, x: Tensor, **options: object) -> Analysis:
    options.setdefault("estimator", "analytic")
    return analyze(trace(model, x), model, x, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("widths", "exact"),
    [([32], 0.09375), ([32] * 2, 0.2136502), ([32] * 3, 0.3533020), ([32] * 5, 0.6961428),
     ([32] * 10, 2.0718490), ([128] * 10, 0.3216908), ([1024] * 20, 0.0732064),
     ([64, 16, 64], 0.3273)],
)  # fmt: skip
def test_relu_chains_against_exact_moments(widths: list[int], exact: float) -> None:
    nu = analysed(chain(widths), torch.ones(2, 7), gain="he").nu
    assert nu.value == pytest.approx(exact, rel=0.03 if len(widths) < 10 else 0.07)
    assert nu.value <= exact * (1 + 1e-6)
    assert nu.stderr is None and nu.samples == 0


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_shares_of_a_relu_chain(depth: int) -> None:
    layers = analysed(chain([16] * depth), torch.ones(2, 7), gain="he").layers
    for index, layer in enumerate(layers[:-1], start=1):
        up = (depth + 1 - index) / (depth + 1)
        assert (layer.forward_share, layer.backward_share) == pytest.approx((up, 1 - up), rel=1e-9)
        assert layer.kappa == pytest.approx((5 - 8 * up * (1 - up)) / 16, rel=1e-6)
    assert layers[-1].kappa == 0 and "read-out" in layers[-1].note
    assert sum(layer.share for layer in layers) == pytest.approx(1)


@pytest.mark.parametrize(
    ("activation", "gain", "widths", "measured"),
    [(nn.Tanh, 1.0, [32] * 3, 0.0771), (nn.Tanh, 1.5, [64] * 5, 0.0846),
     (nn.GELU, 1.98, [32] * 3, 0.489), (nn.SiLU, 2.2, [32] * 3, 0.613),
     (nn.Identity, 1.0, [32] * 3, 0.1152)],
)  # fmt: skip
def test_other_activations_against_monte_carlo(
    activation: type[nn.Module], gain: float, widths: list[int], measured: float
) -> None:
    model = chain(widths, activation=activation)
    nu = analysed(model, torch.ones(2, 7), gain=gain).nu.value
    assert nu == pytest.approx(measured, rel=0.07)


class Residual(nn.Module):
    """docs/theory.md, section 9: C -> n -> C branches, gain 2 into a ReLU and 1 elsewhere."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = self.layer(8, channels, 1.0)
        self.up = nn.ModuleList(self.layer(channels, width, 2.0) for _ in range(depth))
        self.down = nn.ModuleList(self.layer(width, channels, 1.0) for _ in range(depth))
        self.head = self.layer(channels, 1, 1.0)

    @staticmethod
    def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=False)
        with torch.no_grad():
            layer.weight.normal_()
            layer.weight *= (gain * layer.weight.numel() / inputs) ** 0.5 / layer.weight.norm()
        return layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.head(x)


@pytest.mark.parametrize(
    ("channels", "width", "depth", "measured", "stderr"),
    [(256, 8, 4, 0.780, 0.037), (64, 64, 4, 0.168, 0.004), (64, 16, 8, 0.917, 0.045)],
)
def test_residual_networks_against_monte_carlo(
    channels: int, width: int, depth: int, measured: float, stderr: float
) -> None:
    torch.manual_seed(0)
    model = Residual(channels, width, depth)
    nu = analysed(model, torch.ones(2, 8)).nu.value
    assert abs(nu - measured) < 0.08 * measured + 2 * stderr


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm])
def test_norms_divide_the_scale_out(norm: type[nn.Module]) -> None:
    layers: list[nn.Module] = []
    for inputs in (7, 16, 16):
        layers += [nn.Linear(inputs, 16), norm(16), nn.ReLU()]
    model, x = nn.Sequential(*layers, nn.Linear(16, 2)), torch.ones(2, 7)
    first = analysed(model, x, gain=0.5).nu.value
    assert analysed(model, x, gain=3.0).nu.value == pytest.approx(first, rel=1e-9)


def test_both_parametrisations_on_meta() -> None:
    with torch.device("meta"):
        model = chain([4096] * 3)
    x = torch.ones(2, 7, device="meta")
    ntk, standard = (
        analysed(model, x, gain="he", parametrization=p).nu.value for p in ("ntk", "standard")
    )
    assert ntk == pytest.approx(10 / 4096, rel=0.01)
    assert standard != pytest.approx(ntk, rel=0.01)


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        return (y + y) * 0.5


@pytest.mark.parametrize(("named", "written"), [(nn.SiLU, Swish), (nn.ReLU, Doubled)])
def test_functions_written_by_hand_are_one_function(
    named: type[nn.Module], written: type[nn.Module]
) -> None:
    first, second = (
        analysed(chain([32] * 3, activation=kind), torch.ones(2, 7), gain=2.2).nu.value
        for kind in (named, written)
    )
    assert second == pytest.approx(first, rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "depth", "measured", "stderr"),
    [(nn.ReLU, 3, 0.3033, 0.0117), (nn.ReLU, 6, 0.8032, 0.0484), (nn.GELU, 3, 0.4413, 0.0193),
     (nn.SiLU, 3, 0.4872, 0.0231)],
)  # fmt: skip
def test_batch_normed_chains_against_monte_carlo(
    activation: type[nn.Module], depth: int, measured: float, stderr: float
) -> None:
    """Measured over 3,000 draws at width 32, on a batch of 256 Gaussian inputs of 64 features."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(32 if index else 64, 32), nn.BatchNorm1d(32), activation()]
    x = torch.ones(256, 64)
    nu = analysed(nn.Sequential(*layers, nn.Linear(32, 1)), x, gain="he").nu.value
    assert abs(nu - measured) < 0.06 * measured + 2 * stderr


class Dense(nn.Module):
    """DenseNet's pattern: every layer reads all that came before, behind a nonlinearity."""

    def __init__(self, width: int, growth: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Linear(8, width, bias=False)
        layers = []
        for more in growth:
            layers.append(nn.Linear(width, more, bias=False))
            width += more
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x.relu())], 1)
        return self.head(x)


@pytest.mark.thorough
def test_concatenations_against_monte_carlo() -> None:
    model, x = Dense(64, (64, 64)), torch.ones(2, 8)
    closed = analysed(model, x, gain=1.0).nu.value
    measured = analysed(model, x, gain=1.0, estimator="monte-carlo", draws=2000).nu
    assert measured.stderr is not None and 4 * measured.stderr < 0.2 * measured.value
    assert abs(closed - measured.value) < 0.1 * measured.value + 2 * measured.stderr


def test_rough_rules_are_stated() -> None:
    model, x = nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), torch.ones(2, 7)
    assert any("batch norms: nu" in line for line in analysed(model, x).assumptions)
    assert len(analysed(chain([8, 8]), torch.ones(2, 7)).assumptions) == 2


def test_zero_head_has_no_kernel_in_ntk() -> None:
    model = chain([8, 8])
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[0].weight)
    with pytest.raises(AnalysisError, match=r"mean square|tangent kernel") as caught:
        analysed(model, torch.ones(2, 7))
    assert "--gain nonzero" in caught.value.advice


def test_operator_without_a_closed_form_is_named() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(self.fc(x), 1)

    with pytest.raises(AnalysisError, match="'cumsum'"):
        analysed(Sorted(), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("norm", "depth", "width", "measured", "stderr"),
    [(nn.LayerNorm, 1, 128, 0.0127, 0.0002), (nn.LayerNorm, 3, 128, 0.0500, 0.0012),
     (nn.RMSNorm, 1, 128, 0.0232, 0.0005), (nn.RMSNorm, 3, 128, 0.0615, 0.0016),
     (nn.BatchNorm1d, 3, 32, 0.3452, 0.0150), (nn.BatchNorm1d, 6, 32, 0.7932, 0.0652)],
)  # fmt: skip
def test_normed_relu_chains_against_monte_carlo(
    norm: type[nn.Module], depth: int, width: int, measured: float, stderr: float
) -> None:
    """Measured over 4,000 draws (2,000 and a batch of 64 Gaussian inputs for batch norm)."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(width if index else 8, width, bias=False), norm(width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 1, bias=False))
    nu = analysed(model, torch.ones(64, 8), gain="he").nu.value
    assert abs(nu - measured) < 0.06 * measured + 2 * stderr


class SqueezeExcite(nn.Module):
    """Channels weighed by a ReLU of their own averages: degree two in the signal."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.relu(self.gate(self.pool(x)))


def test_out_of_range_is_said_and_never_zero() -> None:
    layers: list[nn.Module] = []
    for channels in (3, 16, 16, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3), nn.ReLU(), SqueezeExcite(16)]
    model, x = nn.Sequential(*layers), torch.randn(2, 3, 16, 16)
    traced = trace(model, (x,))
    found = ESTIMATORS["analytic"].estimate(traced, model, (x,), Assumption(gain=2.0))
    assert sum(layer.kappa for layer in found.layers) > 3
    assert found.nu is None, "nu is composed of the corrections"
    assert any("WARNING: corrections add up to" in text for text in found.assumptions)
    small = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    sound = ESTIMATORS["analytic"].estimate(
        trace(small, (torch.ones(1, 4),)), small, None, Assumption(gain=2.0)
    )
    assert sound.nu is not None and not any("WARNING" in text for text in sound.assumptions)
