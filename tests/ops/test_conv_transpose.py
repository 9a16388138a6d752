"""Transposed convolutions: counts as torch's, moments as sampled, one region from the trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cerewrite
from cerewrite.analysis import find_regions
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import gaussian_value, scalar
from cerewrite.ops import OPRULES
from tests.rewriting.cases import CASES


@pytest.mark.parametrize("name", ["decoder", "decoder1d"])
def test_counts_and_regions(name: str) -> None:
    case = CASES[name]
    model = case.model()
    traced = trace(model, case.inputs())
    with FlopCounterMode(display=False) as counter:
        model(*case.inputs())
    assert counter.get_total_flops() == case.shape[0] * traced.flops
    (region,), _ = find_regions(traced, "block")
    (wanted,) = case.regions(model)
    assert [(y.name, y.op, y.sources, y.target, y.kernel, y.groups) for y in region.layers] == [
        (y.name, y.op, y.sources, y.target, y.kernel, y.groups) for y in wanted.layers
    ]


@pytest.mark.parametrize("name", ["decoder", "decoder1d"])
def test_conversion(name: str) -> None:
    case = CASES[name]
    model = case.model()
    result = cerewrite.convert(
        model,
        case.inputs(),
        budget=["params=1.5x", "flops=2x"],
        estimator="analytic",
        widths="free",
    )
    assert result.verification.passed and result.plan.splits
    assert result.plan.planned.params == sum(p.numel() for p in result.model.parameters())


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 2), (3, 3)])
def test_mean_square_against_draws(stride: int, kernel: int) -> None:
    """Far from the borders: kernel / stride taps of every input channel reach a position."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(32, 64, kernel, stride, bias=False)
    x = torch.randn(1, 32, 1).expand(1, 32, 200)
    squares = []
    for _ in range(60):
        layer.reset_parameters()
        squares.append(float(layer(x).detach()[..., 20:-20].square().mean()))
    mean = sum(squares) / len(squares)
    error = math.sqrt(sum((s - mean) ** 2 for s in squares)) / len(squares)
    net = nn.Sequential(layer)
    traced = trace(net, x)
    op = next(op for op in traced.ops if op.target == "conv_transpose1d")
    read = gaussian_value(scalar(float(x.square().mean())), scalar(0.0))
    context = MomentContext(net, traced, gain=1 / 3 * 32 / 64)
    q = float(context.read(OPRULES["conv_transpose"].moments(op, [read], context)).square.detach())
    assert 4 * error < 0.1 * mean
    assert abs(mean - q) < 4 * error + 0.02 * mean  # the borders of 200 positions: a hundredth
