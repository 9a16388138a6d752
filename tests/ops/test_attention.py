"""Attention in the closed form: what is weighed passes, however the weights were written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace


class Attention(nn.Module):
    """One head between two linears, written in several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 4)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.how == "fused":
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        elif self.how == "einsum":
            logits = torch.einsum("b i c, b j c -> b i j", q, k)
            mask = x.new_zeros((1, x.shape[1], x.shape[1]))
            mask[:, 0, 1] = -100.0
            weights = (logits * 8**-0.5 + mask).softmax(-1)
            y = torch.einsum("b i j, b j c -> b i c", weights, v)
        elif self.how == "normed":
            logits = q @ k.transpose(1, 2)
            y = (logits / logits.norm(dim=-1, keepdim=True)).softmax(-1) @ v
        else:
            logits = q @ k.transpose(1, 2) / 8**0.5
            y = nn.functional.dropout(logits.softmax(-1), 0.1, False) @ v
        return self.down(y)


@pytest.mark.parametrize("how", ["einsum", "matmul"])
def test_ways_of_writing_attention_agree(how: str) -> None:
    found = []
    for way in ("fused", how):
        torch.manual_seed(0)
        analysis = cerewrite.analyze(Attention(way), torch.ones(2, 5, 6), estimator="analytic")
        found.append({layer.name: layer.kappa for layer in analysis.layers})
    fused, written = found
    assert written == pytest.approx(fused, rel=1e-12)
    assert written["v"] > written["q"] == written["k"] > 0


def test_logits_without_a_closed_form_are_not_looked_at() -> None:
    analysis = cerewrite.analyze(Attention("normed"), torch.ones(2, 5, 6), estimator="analytic")
    found = {layer.name: layer.kappa for layer in analysis.layers}
    assert found["v"] > 0 == found["q"] == found["k"]


def test_rolled_windows_keep_their_channels() -> None:
    class Rolled(nn.Module):
        def __init__(self, *axes: int) -> None:
            super().__init__()
            self.up, self.mid, self.down = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
            self.axes = axes

        def forward(self, x: Tensor) -> Tensor:
            y = torch.roll(self.up(x), shifts=[1] * len(self.axes), dims=list(self.axes))
            return self.down(self.mid(y.flip(self.axes[0])).relu())

    free, mixed = (
        next(w.pins for w in trace(Rolled(*axes), torch.ones(2, 5, 5, 6)).widths if w.name == "up")
        for axes in ((1, 2), (1, 3))
    )
    assert not free
    assert [pin.code for pin in mixed] == ["not-member-wise"]
