"""Sums, means and maxima over positions have a closed form; over channels they are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import NoClosedFormError

Reduce = Callable[[Tensor, int], Tensor]

REDUCTIONS: dict[str, Reduce] = {
    "max": lambda x, axis: x.max(axis)[0],
    "min, kept": lambda x, axis: torch.min(x, dim=axis, keepdim=True)[0].squeeze(axis),
    "amax": lambda x, axis: x.amax(axis),
    "sum": lambda x, axis: x.sum(axis),
    "mean": lambda x, axis: x.mean(axis),
    "half of it": lambda x, axis: x.chunk(2, 1)[0].mean(axis),
}


class Reduced(nn.Module):
    """Three widths of rank 3, then a reduction."""

    def __init__(self, reduce: Reduce, axis: int, convolve: bool) -> None:
        super().__init__()
        kind = (lambda n: nn.Conv1d(n, 24, 1)) if convolve else (lambda n: nn.Linear(n, 24))
        self.body = nn.Sequential(
            kind(6), nn.ReLU(), kind(24), nn.ReLU(), kind(24), nn.ReLU()
        )  # fmt: skip
        self.head = nn.LazyLinear(3)
        self.reduce, self.axis = reduce, axis

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reduce(self.body(x), self.axis))


def estimate(name: str, axis: int, convolve: bool) -> float:
    x = torch.randn(2, 6, 8) if convolve else torch.randn(2, 8, 6)
    model = Reduced(REDUCTIONS[name], axis, convolve)
    model(x)
    return cerewrite.analyze(model, (x,), estimator="analytic", gain="he").nu.value


@pytest.mark.parametrize("convolve", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_over_positions(name: str, convolve: bool) -> None:
    """Rank 3 has its channels where the layer before put them, not always on the last axis."""
    plain = estimate("mean", 2 if convolve else 1, convolve)
    assert estimate(name, 2 if convolve else 1, convolve) > 0.9 * plain


@pytest.mark.parametrize("convolve", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_over_channels(name: str, convolve: bool) -> None:
    with pytest.raises(NoClosedFormError, match="over other axes than positions"):
        estimate(name, 1 if convolve else 2, convolve)


def test_positions_keep_the_channels() -> None:
    """The width in front of a maximum over positions is split with the others."""
    model, x = Reduced(REDUCTIONS["max"], 2, convolve=True), torch.randn(2, 6, 8)
    model(x)
    result = cerewrite.convert(model, (x,), estimator="analytic", allow="all")
    assert result.verification.passed
    (split,) = result.plan.splits
    assert split.multiplicity > 1 and len(split.widths) == 3
