"""Heads of softmax attention in the closed form: limits, and draws of whole blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.attention import Block, Sizes
from cerewrite.kernel.heads import Head, head_moments


def test_still_logits_leave_linear_units() -> None:
    """With uniform weights a head is its values' linear layer: variances 2 / d, no covariance."""
    found = head_moments(Head(8, 8, 16, 16), 1e-8)
    assert found.passed == pytest.approx([0.0, 0.0], abs=1e-6)
    assert 16 * found.covariance[:2, :2] == pytest.approx(2 * np.eye(2), abs=1e-3)


def test_heads_that_share_keys_and_values_average_over_their_queries() -> None:
    alone, sharing = (head_moments(Head(1, 8, 16, 16, n, token=0), 1.0) for n in (1, 4))
    assert sharing.covariance[0, 0] < alone.covariance[0, 0]


@pytest.mark.thorough
@pytest.mark.parametrize("token", [False, True])
def test_blocks_at_strong_logits_agree_with_draws(token: bool) -> None:
    """The value path alone is 0.4 times the draws with a token."""
    torch.manual_seed(0)
    block = Block(Sizes(4, 16, 8, token=token, causal=False, rotary=True, gain=1.0))
    basis = torch.linalg.qr(torch.randn(512, 512))[0]
    x = basis[None, :8] * 512**0.5
    drawn = cerewrite.analyze(block, x, estimator="monte-carlo", draws=500).nu
    closed = cerewrite.analyze(block, x, estimator="analytic").nu
    assert drawn.stderr is not None
    assert abs(closed.value - drawn.value) < 4 * drawn.stderr < 0.45 * drawn.value


class Grouped(nn.Module):
    """Eight query heads over two of keys and values."""

    def __init__(self, *, repeated: bool) -> None:
        super().__init__()
        self.repeated = repeated
        self.q, self.o = nn.Linear(64, 64), nn.Linear(64, 3)
        self.k, self.v = nn.Linear(64, 16), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.repeated:
            k, v = (y.repeat_interleave(4, 1) for y in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=not self.repeated)
        out: Tensor = self.o(y.transpose(1, 2).flatten(2)[:, 0])
        return out


def test_grouped_queries_count_their_heads_however_they_are_written() -> None:
    found = []
    for repeated in (False, True):
        torch.manual_seed(0)
        model, x = Grouped(repeated=repeated), torch.randn(2, 6, 64)
        analysis = cerewrite.analyze(model, x, estimator="analytic", gain=1.0)
        found.append([layer.kappa for layer in analysis.layers])
        value = next(layer for layer in analysis.layers if layer.name == "v")
        shares = value.forward_share**2 + value.backward_share**2
        assert value.kappa == pytest.approx(2 / 16 * shares)
    assert found[0] == pytest.approx(found[1])
