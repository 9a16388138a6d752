"""Expectations far from where they are taken: gates saturate."""

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
from cerewrite.kernel import integrals
from cerewrite.kernel.activation import evaluate, gaussian_grid
from cerewrite.kernel.curves import REACH, STEPS, interpolate_log_response, tabled
from cerewrite.kernel.units import Array
from tests.conftest import ROOT


def table_of(function: nn.Module) -> Array:
    return tabled(np.array([[squares(function, math.exp(step / 2))] for step in STEPS]))


def squares(function: nn.Module, factor: float) -> float:
    nodes, weights = gaussian_grid()
    return float(weights @ evaluate(function, factor * nodes)[0] ** 2)


@pytest.mark.parametrize("step", [-4.0, -0.7, 0.3, 2.2, 5.0])
def test_a_sigmoid_saturates_as_its_expectation_does(step: float) -> None:
    table = table_of(nn.Sigmoid())
    middle = len(STEPS) // 2
    degree = (table[middle + 1] - table[middle - 1]) / (2 * (STEPS[1] - STEPS[0]))
    steps = torch.full((1, 2), step, dtype=torch.float64)
    found = float(interpolate_log_response(steps, degree, np.zeros(1), table)[0, 1])
    truth = math.log(squares(nn.Sigmoid(), math.exp(step / 2)) / squares(nn.Sigmoid(), 1.0))
    assert found == pytest.approx(truth, abs=0.005)
    straight = float(interpolate_log_response(steps, degree, np.zeros(1), None)[0, 1])
    assert abs(step) < 1 or straight != pytest.approx(truth, abs=0.01), "the planted fault"


def test_beyond_reach_the_last_slope_goes_on() -> None:
    table = table_of(nn.ReLU())
    steps = torch.tensor([[0.0, REACH, REACH + 3.0, -REACH - 2.0]], dtype=torch.float64)
    found = interpolate_log_response(steps, np.ones(1), np.zeros(1), table)
    assert found[0].tolist() == pytest.approx(steps[0].tolist(), abs=1e-3)


class Excited(nn.Module):
    """Squeeze-excite behind a batch norm, as MobileNetV3 has it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width)
        self.squeeze = nn.Linear(width, width // 4, bias=False)
        self.excite = nn.Linear(width // 4, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.hardswish(self.norm(self.up(x)))
        return y * nn.functional.hardsigmoid(self.excite(self.squeeze(y).relu()))


def deep(inputs: int, width: int) -> nn.Module:
    blocks = [Excited(width if index else inputs, width) for index in range(4)]
    model = nn.Sequential(*blocks, nn.Linear(width, 1, bias=False))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=(2.0 / layer.in_features) ** 0.5)
    return model


def batch_draws() -> ModuleType:
    path = ROOT / "benchmarks" / "batch_draws.py"
    spec = importlib.util.spec_from_file_location("batch_draws", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_squeeze_excite_between_batch_norms_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections add up to 1.2: an order of magnitude at best, and no longer a thousandfold."""
    torch.manual_seed(0)
    x = torch.eye(16) * 4.0
    truth = relative_variance(batch_draws().kernels(deep(16, 32), x, 6000))
    assert 2 * truth.stderr < 0.5 * truth.value

    def closed() -> float:
        # features enough that examples hardly overlap, as orthogonal ones do not
        traced_input = torch.ones(16, 4096, device="meta")
        model = deep(4096, 32).to("meta")
        return analyze(trace(model, traced_input), model, gain=2.0, estimator="analytic").nu.value

    assert 0.5 * truth.value < closed() < 3 * truth.value
    monkeypatch.setattr(integrals, "_BENT", math.inf)
    assert closed() > 100 * truth.value, "the planted fault: powers that never end"


def test_what_is_no_number_stays_none() -> None:
    table = tabled(np.exp(np.outer(STEPS**3, [0.1])))
    steps = torch.tensor([[0.0, math.nan, 1.0]], dtype=torch.float64)
    found = interpolate_log_response(steps, np.zeros(1), np.zeros(1), table)
    assert found.isnan().tolist() == [[False, True, False]]
