"""Estimators against each other; benchmarks/accuracy.py does it on many more networks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Estimate
from tests.models import chain

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sampled(model: nn.Module, x: Tensor, gain: float, draws: int) -> Estimate:
    assumption = Assumption(gain=gain, draws=draws)
    nu = ESTIMATORS["monte-carlo"].estimate(trace(model, x), model, x, assumption).nu
    assert nu is not None
    return nu


def jackknifed(model: nn.Module, x: Tensor, gain: float, draws: int) -> tuple[float, float]:
    """nu and its standard error."""
    assumption = Assumption(gain=gain, draws=draws, seed=1)
    layers = ESTIMATORS["jackknife"].estimate(trace(model, x), model, x, assumption).layers
    nu = math.prod(1 + layer.kappa for layer in layers)
    return nu - 1, nu * math.sqrt(sum((layer.stderr or 0.0) ** 2 for layer in layers))


DENSE = [
    (nn.ReLU, 2.0, [64, 64], False),
    (nn.Tanh, 1.5, [64, 64], False),
    (nn.GELU, 1.98, [96, 64], False),
    (nn.SiLU, 2.2, [128], True),
]


@pytest.mark.parametrize(("activation", "gain", "widths", "bias"), DENSE)
def test_dense_networks(
    activation: type[nn.Module], gain: float, widths: list[int], bias: bool
) -> None:
    torch.manual_seed(0)
    model, x = chain(widths, activation=activation, bias=bias), torch.ones(1, 7)
    truth = sampled(model, x, gain, 2000)
    assert truth.stderr is not None and 4 * truth.stderr < 0.2 * truth.value
    closed = analyze(trace(model, x), model, x, gain=gain, estimator="analytic").nu.value
    assert abs(closed - truth.value) < 4 * truth.stderr + 0.03 * truth.value
    nu, stderr = jackknifed(model, x, gain, 60)
    assert 4 * stderr < 0.5 * nu
    assert abs(nu - truth.value) < 4 * math.hypot(stderr, truth.stderr)


def conv_net(width: int, norm: bool) -> nn.Module:
    def block(inputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)]
    return nn.Sequential(*block(3), *block(width), *head)


@pytest.mark.parametrize("norm", [False, True])
def test_convolutions_on_white_noise(norm: bool) -> None:
    model = conv_net(32, norm)
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = sampled(model, x, 2.0, 600)
    assert truth.stderr is not None and 4 * truth.stderr < 0.35 * truth.value
    nu, stderr = jackknifed(model, x, 2.0, 24)
    assert 4 * stderr < 0.6 * nu
    assert abs(nu - truth.value) < 4 * math.hypot(stderr, truth.stderr) + 0.1 * truth.value
    # the closed form takes maps as constant: an upper bound, and a loose one here
    assert (
        analyze(trace(model, x), model, x, gain=2.0, estimator="analytic").nu.value
        > 2 * truth.value
    )
