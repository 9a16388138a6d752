"""Batch norms of finite batches against draws of networks that see them."""

from __future__ import annotations

import importlib.util
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.estimators.draws import relative_variance
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.activation import gaussian_grid
from cerewrite.kernel.batch import ASSUMED, Batch, on_sphere, steepness
from tests.conftest import ROOT

FEATURES = 4096
"""Features of the traced input: examples that hardly overlap, as orthogonal ones do not."""


def batch_draws() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "batch_draws", ROOT / "benchmarks" / "batch_draws.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def chain(depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for index in range(depth):
        inputs = width if index else FEATURES
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1, bias=False))


def closed(model: nn.Module, examples: int) -> float:
    x = torch.ones(examples, FEATURES, device="meta")
    return analyze(trace(model.to("meta"), x), model, gain=1.0, estimator="analytic").nu.value


@pytest.mark.parametrize(
    ("activation", "depth", "batch", "measured", "stderr"),
    [(nn.ReLU, 1, 8, 0.0596, 0.0004), (nn.ReLU, 1, 32, 0.0462, 0.0005),
     (nn.ReLU, 2, 32, 0.0909, 0.0009), (nn.ReLU, 4, 16, 0.2072, 0.0031),
     (nn.ReLU, 4, 32, 0.1942, 0.0025), (nn.Identity, 1, 8, 0.0218, 0.0002),
     (nn.Identity, 2, 32, 0.0327, 0.0003), (nn.Identity, 4, 32, 0.0621, 0.0007),
     (nn.SiLU, 1, 32, 0.0535, 0.0006), (nn.SiLU, 2, 32, 0.1151, 0.0010),
     (nn.SiLU, 4, 32, 0.2869, 0.0045), (nn.SiLU, 8, 32, 0.8292, 0.0246)],
)  # fmt: skip
def test_small_batches_against_monte_carlo(
    activation: type[nn.Module], depth: int, batch: int, measured: float, stderr: float
) -> None:
    """Measured over 8,000 to 40,000 draws at width 64, on a batch of orthogonal inputs."""
    assert 4 * stderr < 0.12 * measured
    nu = closed(chain(depth, 64, activation), batch)
    assert abs(nu - measured) < 0.06 * measured + 2 * stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("activation", "depth", "batch"), [(nn.ReLU, 1, 16), (nn.SiLU, 1, 16), (nn.Tanh, 2, 32)]
)
def test_a_factor_is_seen(activation: type[nn.Module], depth: int, batch: int) -> None:
    """60,000 networks drawn here, and a factor of 1.05 planted."""
    nu, x = closed(chain(depth, 48, activation), batch), torch.eye(batch) * batch**0.5
    narrow = chain(depth, 48, activation)
    narrow[0] = nn.Linear(batch, 48, bias=False)
    for layer in narrow.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    truth = relative_variance(batch_draws().kernels(narrow, x, 60_000))
    assert 2 * truth.stderr < 0.015 * truth.value, "the draws do not resolve 5 per cent"
    allowed = 0.01 * truth.value + 2 * truth.stderr
    assert abs(nu - truth.value) < allowed
    assert all(abs(nu * fault - truth.value) > allowed for fault in (1.05, 1 / 1.05))


def test_a_large_batch_is_no_small_one() -> None:
    """A planted fault: the batch left out is seen at 8 layers of SiLU and at 8 examples."""
    deep, shallow = chain(8, 64, nn.SiLU), chain(1, 64, nn.ReLU)
    assert closed(deep, 4096) > 1.5 * 0.8292
    assert closed(shallow, 4096) < 0.85 * 0.0596


def test_sphere_against_draws() -> None:
    effective_batch_size = 16
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(
        400_000, effective_batch_size, generator=generator, dtype=torch.float64
    ).requires_grad_()
    centred = u - u.mean(1, keepdim=True)
    y = (centred / centred.square().mean(1, keepdim=True).sqrt())[:, 0]
    (slopes,) = torch.autograd.grad(y.sum(), u)
    nodes, weights = gaussian_grid()
    model = on_sphere(nodes, effective_batch_size)
    fourth = y.detach() ** 4
    assert float(fourth.std()) / math.sqrt(len(y)) < 0.02
    assert float(weights @ model**2) == pytest.approx(1.0, abs=1e-9)
    assert float(weights @ model**4) == pytest.approx(
        3 * (effective_batch_size - 1) / (effective_batch_size + 1), rel=0.04
    )
    assert float(fourth.mean()) == pytest.approx(
        3 * (effective_batch_size - 1) / (effective_batch_size + 1), rel=0.02
    )
    energy = float(slopes.square().sum(1).mean())
    assert float(weights @ steepness(model, effective_batch_size) ** 2) == pytest.approx(
        energy, rel=0.02
    )
    assert float(weights @ steepness(model, 32) ** 2) != pytest.approx(energy, rel=0.02)


def test_few_examples_stand_for_a_batch() -> None:
    model = chain(2, 32, nn.ReLU)
    assert closed(model, 2) == closed(model, ASSUMED) != closed(model, 128)


def test_overlap_takes_places() -> None:
    assert Batch(32).effective_batch_size(0.0) == 32
    assert Batch(32).effective_batch_size(math.sqrt(1 / 32)) == pytest.approx(16, rel=0.02)
    assert Batch(4096).effective_batch_size(1.0) == 8


class Gated(nn.Module):
    """Linear, batch norm, activation, squeeze-excite, linear, batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.first, self.last = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.squeeze, self.excite = nn.Linear(width, 8), nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.first(self.up(x)))
        x = x * nn.functional.hardsigmoid(self.excite(self.squeeze(x).relu()))
        return self.last(self.down(x))


@pytest.mark.thorough
@pytest.mark.parametrize("depth", [2, 8])
def test_gates_between_batch_norms_against_monte_carlo(depth: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(Gated(32) for _ in range(depth)), nn.Linear(32, 1))
    x = torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    traced = trace(model, x)
    truth = analyze(traced, model, x, estimator="monte-carlo", draws=400).log_variance
    found = analyze(traced, model, x, estimator="analytic").log_variance
    assert truth.stderr is not None and 2 * truth.stderr < 0.25 * truth.value
    assert np.log(found.value / truth.value) == pytest.approx(0, abs=0.35)
