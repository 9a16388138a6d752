"""Second moments of maps: duals against their closed form, convolutions against real ones."""

import math

import pytest
import torch
from torch.nn import functional

from cerewrite.estimators.maps.fields import Field, convolved, dual, patches


def test_the_dual_of_relu_is_the_arc_cosine_kernel() -> None:
    c = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    found = dual(torch.relu, Field(c, c, torch.zeros(2, dtype=torch.float64)))
    angle = math.acos(0.6)
    sigma = (math.sin(angle) + (math.pi - angle) * 0.6) / (2 * math.pi)
    theta = 0.6 * (math.pi - angle) / (2 * math.pi)
    assert found.sigma[0, 1].item() == pytest.approx(sigma, rel=1e-4)
    assert found.theta[0, 1].item() == pytest.approx(theta, rel=1e-3)
    assert found.sigma[0, 0].item() == pytest.approx(0.5, rel=1e-6)
    assert found.mean[0].item() == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-3)


def test_convolved_moments_are_those_of_patches() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = x.movedim(1, -1).reshape(-1, 3)
    index = patches((5, 4), 2, (3, 3), (2, 1), (1, 1), (1, 1))
    found = convolved(flat @ flat.T, index)
    columns = functional.unfold(x, 3, 1, 1, (2, 1)).movedim(1, -1).reshape(-1, 27)
    assert torch.allclose(found, columns @ columns.T / 9)
