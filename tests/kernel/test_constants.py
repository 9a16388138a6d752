"""Values that no input reaches are computed; quotients by them; weights over their own sum."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.constants import Constants
from tests.ops.test_creation import kernel, mean


def grid() -> Tensor:
    """Positions as models make them."""
    across, down = torch.meshgrid(torch.arange(4), torch.arange(2), indexing="ij")
    return torch.stack([across, down]).flatten().float()[:8].sin()


@pytest.mark.parametrize(
    "make",
    [
        grid,
        lambda: ~torch.zeros(8, dtype=torch.bool) * 2.0,
        lambda: operator.invert(torch.zeros(8, dtype=torch.bool)).float(),
        lambda: torch.linspace(0, 1, 8).cumsum(0),
        lambda: torch.as_tensor([1.0, 2.0]).tile(4),
        lambda: torch.eye(8)[3].repeat_interleave(1),
    ],
)
def test_what_is_added_counts_with_its_own_mean_square(make: Callable[[], Tensor]) -> None:
    square = float(make().double().square().mean())
    assert square > 0
    assert kernel(lambda x: mean(x) + make()) == pytest.approx(2.0 + square, rel=1e-6)


def test_a_value_that_is_written_to_is_not_known() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.zeros(8)
            mask[2:4].fill_(5.0)
            return x + mask + torch.ones(8).cos()

    net = Net()
    ops = torch_ops(net)
    constants = Constants(ops, lambda name: None)
    named = {op.target: constants.value(op.name) for op in ops}
    assert named["zeros"] is None
    assert named["cos"] is not None and named["cos"][0] == pytest.approx(0.5403, abs=1e-4)
    assert named["input"] is None


def torch_ops(net: nn.Module) -> tuple:  # type: ignore[type-arg]
    from cerewrite.frontend.tracing.export_rung import export_ops

    return tuple(export_ops(net, (torch.ones(2, 8),), {}))


def test_over_constants_is_times_the_mean_of_their_inverse_squares() -> None:
    by = torch.tensor([0.5, 1, 2, 4, 0.5, 1, 2, 4])
    factor = float(by.pow(-2).mean())
    assert kernel(lambda x: mean(x) / by) == pytest.approx(2.0 * factor)
    with pytest.raises(AnalysisError, match="that inputs reach"):
        kernel(lambda x: mean(x) / (1 + mean(x.flip(2)).square()))
    with pytest.raises(AnalysisError, match="by zero"):
        kernel(lambda x: mean(x) / torch.zeros(8))


def test_weights_over_their_own_sum_are_an_average() -> None:
    def tokens(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def weighed(x: Tensor) -> Tensor:
        logits = tokens(x) @ tokens(x).transpose(1, 2)
        weights = 0.3 * logits.softmax(-1) + torch.ones(16, 16).softmax(-1)
        return (weights / weights.sum(-1, keepdim=True)) @ tokens(x)

    def wrong(x: Tensor) -> Tensor:
        logits = (tokens(x) @ tokens(x).transpose(1, 2)).exp()
        return (logits / logits.sum(1, keepdim=True)) @ tokens(x)

    assert kernel(weighed) == pytest.approx(kernel(tokens))
    with pytest.raises(AnalysisError, match="that inputs reach"):
        kernel(wrong)


def test_repeats_and_windows_keep_every_unit() -> None:
    plain = kernel(mean)
    assert kernel(lambda x: mean(x.repeat_interleave(2, 2))) == pytest.approx(plain)
    assert kernel(lambda x: mean(x.tile(1, 1, 2, 2))) == pytest.approx(plain)
    assert kernel(lambda x: x.unfold(2, 2, 2).mean((2, 3, 4))) == pytest.approx(plain)


def test_a_view_as_another_value_keeps_the_channels_free() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
            self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x = self.norm(x.flatten(0, 1)).reshape_as(x)
            return self.last(self.second(x.relu()).relu())

    traced = trace(Net(), torch.ones(2, 5, 4))
    assert not next(w for w in traced.widths if w.name == "first").pins
