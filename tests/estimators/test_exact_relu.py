from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.estimators.exact_relu import exact_relu_nu
from cerewrite.frontend.tracing import trace
from tests.models import chain


@pytest.mark.parametrize(
    ("widths", "reference"),
    [([32], 0.09375), ([32] * 2, 0.2136502), ([32] * 3, 0.3533020), ([32] * 5, 0.6961428),
     ([32] * 10, 2.0718490), ([128] * 10, 0.3216908), ([1024] * 20, 0.0732064)],
)  # fmt: skip
def test_reference_numbers_to_seven_digits(widths: list[int], reference: float) -> None:
    assert exact_relu_nu(widths) == pytest.approx(reference, abs=5e-8)


def test_reference_number_of_unequal_widths() -> None:
    assert exact_relu_nu([64, 16, 64]) == pytest.approx(0.3273, abs=5e-5)


def test_members_divide_and_narrower_is_worse() -> None:
    one = exact_relu_nu([16, 16])
    assert exact_relu_nu([16, 16], multiplicity=8) == one / 8
    assert exact_relu_nu([8, 16]) > one > exact_relu_nu([16, 17])


def test_lambdas_scale_out_and_pick_layers() -> None:
    assert exact_relu_nu([8, 8], lambdas=[3, 3, 3]) == pytest.approx(exact_relu_nu([8, 8]))
    # the read-out's own parameters see the forward energy alone: prod (1 + 5/n) - 1
    only_last = exact_relu_nu([8, 16], lambdas=[0, 0, 1])
    assert only_last == pytest.approx((1 + 5 / 8) * (1 + 5 / 16) - 1)


@pytest.mark.parametrize(
    ("widths", "options"),
    [([0], {}), ([4], {"multiplicity": 0}), ([4], {"lambdas": [1.0]}),
     ([4], {"lambdas": [1.0, -1.0]}), ([4], {"lambdas": [0.0, 0.0]})],
)  # fmt: skip
def test_senseless_requests_are_refused(widths: list[int], options: dict[str, object]) -> None:
    with pytest.raises(AnalysisError):
        exact_relu_nu(widths, **options)  # type: ignore[arg-type]


def sampled_kernels(widths: list[int], draws: int) -> np.ndarray:
    """K of a ReLU chain by hand, many draws at once: an independent implementation."""
    generator = torch.Generator().manual_seed(5)
    a = torch.ones(draws, 4, 1)
    energies, weights, masks = [], [], []
    for fan_in, width in zip([4, *widths], [*widths, 1], strict=True):
        energies.append((a**2).sum((1, 2)) / fan_in)
        weights.append(torch.randn(draws, width, fan_in, generator=generator))
        weights[-1] *= math.sqrt(2 / fan_in)
        z = weights[-1] @ a
        masks.append((z > 0).float())
        a = z.relu()
    delta = torch.ones(draws, 1, 1)
    kernel = energies[-1].clone()
    for index in range(len(widths) - 1, -1, -1):
        delta = masks[index] * (weights[index + 1].transpose(1, 2) @ delta)
        kernel += energies[index] * (delta**2).sum((1, 2))
    return kernel.double().numpy()


def against(exact: float, kernels: np.ndarray) -> tuple[float, float]:
    """Distance in standard errors, and four relative standard errors."""
    parts = kernels.reshape(50, -1)
    nus = parts.var(1, ddof=1) / kernels.mean() ** 2
    stderr = nus.std(ddof=1) / math.sqrt(len(nus))
    return abs(float(nus.mean()) - exact) / stderr, 4 * stderr / exact


def test_exact_against_sampling_and_a_planted_fault() -> None:
    kernels = sampled_kernels([48, 16], 60_000)
    exact = exact_relu_nu([48, 16])
    distance, resolution = against(exact, kernels)
    assert distance < 4
    assert resolution < 0.05
    assert against(1.05 * exact, kernels)[0] > 4


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_estimator_on_a_chain(parametrization: str) -> None:
    model, x = chain([16, 16]), torch.ones(2, 7)
    assumption = Assumption(parametrization=parametrization, gain=2.0)  # type: ignore[arg-type]
    found = ESTIMATORS["exact-relu"].estimate(trace(model, x), model, x, assumption)
    assert found.nu is not None and found.nu.stderr is None
    lambdas = None if parametrization == "ntk" else [7 / 2, 16 / 2, 16 / 2]
    assert found.nu.value == pytest.approx(exact_relu_nu([16, 16], lambdas=lambdas))
    assert len(found.layers) == 3


@pytest.mark.parametrize(
    "model",
    [
        chain([8], activation=nn.Tanh),
        chain([8], bias=True),
        nn.Sequential(nn.Linear(7, 8, bias=False), nn.ReLU()),
        nn.Sequential(nn.Linear(7, 8, bias=False), nn.Linear(8, 1, bias=False)),
    ],
)
def test_other_models_are_refused(model: nn.Module) -> None:
    x = torch.ones(2, 7)
    with pytest.raises(AnalysisError) as caught:
        ESTIMATORS["exact-relu"].estimate(trace(model, x), model, x, Assumption())
    assert caught.value.advice
