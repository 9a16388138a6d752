"""Quotients by values that inputs reach: directions, linear attention, response norms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cerewrite.analysis import analyze
from cerewrite.errors import NoClosedFormError
from cerewrite.estimators.analytic import propagate
from cerewrite.estimators.draws import make_subject, relative_variance
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.moments import MomentContext
from cerewrite.ops.quotients import quotient

WIDTH = 64


class Net(nn.Module):
    """Layers around something in between; equal positions, as the closed form has them."""

    def __init__(self, between: Callable[[Tensor], Tensor], inner: int = WIDTH) -> None:
        super().__init__()
        self.up, self.mid = nn.Linear(6, WIDTH, bias=False), nn.Linear(WIDTH, inner, bias=False)
        self.down, self.between = nn.Linear(WIDTH, 1, bias=False), between

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.between(self.mid(self.up(x).relu()))).mean(
            tuple(range(1, x.ndim - 1))
        )


def direction(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=-1)


def signs(x: Tensor) -> Tensor:
    return functional.normalize(x.relu() + 0.5, dim=1)


def response(x: Tensor) -> Tensor:
    size = x.norm(p=2, dim=(1, 2), keepdim=True)
    return x + torch.addcmul(
        torch.zeros(WIDTH), torch.ones(WIDTH), x * (size / size.mean(-1, True))
    )


def attention(x: Tensor) -> Tensor:
    q, k, v = x.chunk(3, -1)
    product = q.relu() @ (k.relu().transpose(-1, -2) @ functional.pad(v, (0, 1), value=1.0))
    return product[..., :-1] / (product[..., -1:] + 1e-9)


def limit(model: nn.Module, x: Tensor) -> float:
    """The tangent kernel in the limit of wide layers, at gain 2."""
    traced = trace(model, x)
    with torch.enable_grad():
        return propagate(traced, MomentContext(model, traced, gain=2.0)).item()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("between", "inner", "shape"),
    [(response, WIDTH, (1, 2, 2, 6)),
     (attention, 3 * WIDTH, (1, 3, 6))],
)  # fmt: skip
def test_kernel_and_nu_against_draws(
    between: Callable[[Tensor], Tensor], inner: int, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model, x = Net(between, inner), torch.ones(shape)
    traced = trace(model, x)
    subject = make_subject(traced, model, x, gain=2.0)
    kernels = torch.tensor([subject.kernel(i) for i in range(1200)], dtype=torch.float64)
    mean, error = kernels.mean().item(), kernels.std().item() / len(kernels) ** 0.5
    assert 2 * error < 0.06 * mean
    assert limit(model, x) == pytest.approx(mean, abs=0.05 * mean + 2 * error)
    closed = analyze(traced, model, x, gain=2.0, estimator="analytic").nu.value
    drawn = relative_variance(kernels.numpy())
    assert 2 * drawn.stderr < 0.3 * drawn.value
    assert closed == pytest.approx(drawn.value, abs=0.15 * drawn.value + 3 * drawn.stderr)


def test_a_direction_is_a_norm_over_the_channels() -> None:
    class Normed(Net):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.between = nn.RMSNorm(WIDTH)
            nn.init.constant_(self.between.weight, WIDTH**-0.5)

    x = torch.ones(2, 4, 6)
    nus = [
        analyze(trace(m, x), m, x, gain=2.0, estimator="analytic").nu.value
        for m in (Net(direction), Normed())
    ]
    assert nus[0] == pytest.approx(nus[1], rel=1e-9)
    assert limit(Net(direction), x) == pytest.approx(limit(Normed(), x), rel=1e-9)


def test_channels_are_where_the_layer_before_wrote_them() -> None:
    class Sequence(Net):
        def __init__(self, axis: int) -> None:
            super().__init__(nn.Identity())
            self.up, self.mid = nn.Conv1d(6, WIDTH, 1), nn.Conv1d(WIDTH, WIDTH, 1)
            self.axis = axis

        def forward(self, x: Tensor) -> Tensor:
            x = functional.normalize(self.mid(self.up(x).relu()), dim=self.axis)
            return self.down(x.transpose(1, 2)).mean(1)

    for axis, kind in ((1, "direction"), (2, "sign")):
        traced = trace(Sequence(axis), torch.ones(2, 6, 5))
        ops = {op.name: op for op in traced.ops}
        (form,) = (quotient(op, ops.__getitem__) for op in traced.ops if op.target == "div")
        assert form is not None and (form.kind, form.count) == (kind, WIDTH if axis == 1 else 5)


def test_positions_that_are_alike_keep_their_sign_alone() -> None:
    x = torch.ones(2, 4, 6)
    first, second = (
        limit(Net(f), x) for f in (signs, lambda y: torch.sign(y.relu() + 0.5) * 4**-0.5)
    )
    assert first == pytest.approx(second, rel=1e-6)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x / (1 + x.square().mean(-1, True)),
        lambda x: x / x.norm(p=1, dim=-1, keepdim=True),
        lambda x: x / x.flip(1).norm(dim=-1, keepdim=True),
        lambda x: (
            (x @ torch.ones(WIDTH, WIDTH))[..., :-1] / (x @ torch.ones(WIDTH, WIDTH))[..., -1:]
        ),
        lambda x: x.norm(dim=1, keepdim=True) * x,
    ],
)
def test_other_quotients_are_refused(between: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net, x = Net(between), torch.ones(2, 4, 6)
    net.down = nn.LazyLinear(1, bias=False)  # type: ignore[assignment]
    net(x)
    traced = trace(net, x)
    with pytest.raises(NoClosedFormError):
        propagate(traced, MomentContext(net, traced, gain=2.0))
