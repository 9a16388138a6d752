"""Branches that are weighed and added: selective kernels, split attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.errors import NoClosedFormError
from cerewrite.estimators.analytic import propagate
from cerewrite.estimators.draws import make_subject, relative_variance
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.moments import MomentContext

WIDTH = 48


class Branched(nn.Module):
    """Two layers' outputs, joined in some way, and a read-out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.up, self.down = nn.Linear(6, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False)
        self.first, self.second = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.both = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.mid = nn.Linear(WIDTH, WIDTH, bias=False)
        self.select = nn.Linear(WIDTH, 2 * WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        if self.how in ("split", "mean", "plain"):
            y = self.both(x).relu().view(-1, 2, WIDTH)
        else:
            y = torch.stack([self.first(x).relu(), self.second(x).relu()], dim=1)
        if self.how in ("split", "selective"):
            logits = self.select(self.mid(y.sum(1)).relu())
            y = y * logits.view(-1, 2, WIDTH).softmax(1)
        return self.down(y.mean(1) if self.how == "mean" else y.sum(1))


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["split", "selective", "plain", "stacked", "mean"])
def test_kernel_and_nu_against_draws(how: str) -> None:
    """The limit's kernel within 6 %, nu within 20 %; draws resolve half of that."""
    torch.manual_seed(0)
    model, x = Branched(how), torch.ones(1, 6)
    traced = trace(model, x)
    with torch.enable_grad():
        limit = propagate(traced, MomentContext(model, traced, gain=2.0)).item()
    subject = make_subject(traced, model, x, gain=2.0)
    kernels = torch.tensor([subject.kernel(i) for i in range(1500)], dtype=torch.float64)
    mean, error = kernels.mean().item(), kernels.std().item() / len(kernels) ** 0.5
    assert 2 * error < 0.06 * mean
    assert limit == pytest.approx(mean, abs=0.04 * mean + 2 * error)
    closed = analyze(traced, model, x, gain=2.0, estimator="analytic").nu.value
    drawn = relative_variance(kernels.numpy())
    assert 2 * drawn.stderr < 0.3 * drawn.value
    assert closed == pytest.approx(drawn.value, abs=0.1 * drawn.value + 3 * drawn.stderr)


def test_weights_of_three_branches_add_up_to_one() -> None:
    class Net(nn.Module):
        def __init__(self, weighed: bool) -> None:
            super().__init__()
            self.up, self.select = nn.Linear(6, 8), nn.Linear(8, 24)
            self.down, self.weighed = nn.Linear(8, 2), weighed

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(x).relu()
            weights = self.select(x).view(-1, 3, 8).softmax(1).sum(1)
            return self.down(x * weights if self.weighed else x)

    found = []
    for weighed in (True, False):
        net = Net(weighed)
        traced = trace(net, torch.ones(2, 6))
        with torch.enable_grad():
            found.append(propagate(traced, MomentContext(net, traced, gain=2.0)).item())
    assert found[0] == pytest.approx(found[1], rel=2e-3)


@pytest.mark.parametrize(
    "reduce",
    [lambda x: x.view(-1, 4, 2).sum(2), lambda x: torch.stack([x, x], 1).sum(2)],
)
def test_sums_over_channels_are_no_sums_over_branches(reduce: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return reduce(self.up(x))

    net = Net()
    traced = trace(net, torch.ones(2, 6))
    with pytest.raises(NoClosedFormError, match="other axes"):
        propagate(traced, MomentContext(net, traced))
