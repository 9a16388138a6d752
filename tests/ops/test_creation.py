"""Values made of no input, sums over positions, detached values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError, NoClosedFormError
from cerewrite.estimators.analytic import propagate
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.moments import MomentContext


class Net(nn.Module):
    """A convolution, something in between, and a read-out."""

    def __init__(self, between: Callable[[Tensor], Tensor], last: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between = nn.Conv2d(3, 8, 3, bias=False), between
        self.last = nn.Linear(8, 2, bias=False) if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def kernel(between: Callable[[Tensor], Tensor], last: bool = True) -> float:
    """The tangent kernel at gain 1."""
    net = Net(between, last)
    traced = trace(net, (torch.randn(2, 3, 6, 6),))
    with torch.enable_grad():
        return propagate(traced, MomentContext(net, traced, gain=1.0)).item()


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def test_a_sum_over_positions_is_their_number_times_the_mean() -> None:
    assert kernel(mean) == pytest.approx(2.0)
    assert kernel(lambda x: x.sum((2, 3))) == pytest.approx(2.0 * 16**2)
    assert kernel(lambda x: x.sum(3).mean(2)) == pytest.approx(2.0 * 4**2)


def test_an_extreme_of_positions_is_any_of_them() -> None:
    def tokens(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    assert kernel(lambda x: tokens(x).max(1)[0]) == pytest.approx(2.0)
    assert kernel(lambda x: tokens(x).min(dim=1, keepdim=True)[0].mean(1)) == pytest.approx(2.0)
    for refused in (lambda x: x.max(1)[0], lambda x: torch.max(x, x.flip(2)).mean(1)):
        with pytest.raises(NoClosedFormError, match="other axes than positions"):
            kernel(refused, last=False)


def test_a_sum_over_channels_has_no_closed_form() -> None:
    with pytest.raises(AnalysisError, match="other axes than positions"):
        kernel(lambda x: x.sum(1), last=False)


@pytest.mark.parametrize(
    ("make", "square"),
    [
        (lambda: torch.zeros(8), 0.0),
        (lambda: torch.ones(8), 1.0),
        (lambda: torch.full((8,), 3.0), 9.0),
        (lambda: torch.zeros(8) - 3, 9.0),
        (lambda: torch.cos(torch.zeros(8)), 1.0),
        (lambda: torch.arange(8), sum(i * i for i in range(8)) / 8),
    ],
)
def test_values_of_no_input_add_their_mean_square_and_no_kernel(
    make: Callable[[], Tensor], square: float
) -> None:
    assert kernel(lambda x: mean(x) + make()) == pytest.approx(2.0 + square)


def test_a_detached_value_keeps_its_mean_square_alone() -> None:
    assert kernel(lambda x: mean(x).detach()) == pytest.approx(1.0)


def test_a_value_of_another_ones_size_keeps_that_width() -> None:
    traced = trace(Net(lambda x: mean(x) + mean(x).new_ones(8)), (torch.randn(2, 3, 6, 6),))
    (width,) = (w for w in traced.widths if w.name == "first")
    assert {"not-member-wise", "tied-to-fixed-width"} & {pin.code for pin in width.pins}
