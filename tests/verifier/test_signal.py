"""Signal and gradient norms against the original's, and the settings that keep them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.ir import Check
from cerewrite.verifier.signal import check_signal
from tests.standardised import Normed

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def convolutions(norm: Callable[[int], nn.Module], scale: Callable[[Tensor], None]) -> nn.Module:
    """Three widths with norms whose scale is filled."""
    layers: list[nn.Module] = []
    for inputs in (3, 24, 24):
        layers += [nn.Conv2d(inputs, 24, 3, padding=1), norm(24), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))
    for layer in layers[1::3]:
        scale(layer.weight.data)
    return model


def converted(model: nn.Module) -> cerewrite.ConvertResult:
    return cerewrite.convert(model, (X,), estimator="analytic", allow="all")


def signal(model: nn.Module, result: cerewrite.ConvertResult) -> Check:
    checks = cerewrite.verify(model, result.model, result.plan, (X,)).checks
    return next(check for check in checks if check.name == "signal")


def signs(weight: Tensor) -> None:
    """Ones of both signs, whose mean is zero."""
    weight.copy_(torch.ones(len(weight)))[::2] *= -1


def sparse(weight: Tensor) -> None:
    """A few large values: what a trained norm with dead channels has."""
    weight.zero_()[::8] = 3.0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda c: nn.GroupNorm(4, c)])
@pytest.mark.parametrize("scale", [signs, sparse, nn.init.normal_])
def test_scales_of_both_signs_keep_the_signal(
    norm: Callable[[int], nn.Module], scale: Callable[[Tensor], None]
) -> None:
    """Their mean would be zero: the signal died, and verification said passed."""
    model = convolutions(norm, scale)
    result = converted(model)
    assert result.plan.splits and result.verification.passed
    before, after = (net.train()(X).detach().square().mean() for net in (model, result.model))
    assert 0.1 < float(after / before) < 10.0


def mean(scale: Tensor) -> None:
    scale.fill_(float(scale.mean()) + 0.02)


def silent_member(scale: Tensor) -> None:
    scale.zero_()


@pytest.mark.parametrize("fault", [mean, silent_member])
def test_a_signal_that_dies_is_caught(fault: Callable[[Tensor], None]) -> None:
    model = convolutions(nn.BatchNorm2d, signs)
    result = converted(model)
    assert signal(model, result).passed
    fault(result.model[1].weight.data)
    found = signal(model, result)
    assert not found.passed and "times the original's" in found.detail


class Squeezed(nn.Module):
    """Channels weighed by a gate with a batch norm over one value per example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 32, 1, bias=False), nn.BatchNorm2d(32),
            nn.ReLU(), nn.Conv2d(32, 48, 1),
        )  # fmt: skip
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.last(x * self.gate(x).sigmoid()).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_norm_over_two_values_is_no_fault(seed: int) -> None:
    """Its gradient is eps over a variance that two values may give anything."""
    torch.manual_seed(seed)
    model, x = Squeezed(), 1e4 * torch.randn(2, 3, 6, 6)
    plan = cerewrite.plan(
        cerewrite.analyze(model, x, estimator="analytic", memory_batch=None), allow="all"
    )
    new = cerewrite.apply(plan, model)
    (check,) = check_signal(model, new, plan, (x,))
    assert plan.splits and check.passed, check.detail


def test_trained_weights_are_compared_as_drawn_ones_would_be() -> None:
    """A low-rank weight carries a thousand times the signal of a drawn one of its norm."""
    widths = [12, 48, 48, 48, 48, 48]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        layers[-2].weight.data.copy_(
            2.0 * torch.rand(outputs, 1) * torch.rand(inputs) / inputs**0.5
        )
    model, x = nn.Sequential(*layers, nn.Linear(48, 5)), torch.rand(3, 12)
    result = cerewrite.convert(model, (x,), estimator="analytic", allow="all")
    assert result.plan.splits and result.verification.passed
    after, before = (net(x).detach().square().mean() for net in (result.model, model))
    ratio = float(after / before)
    assert not 0.01 < ratio < 100.0  # so the redrawn original is what it is held against


def standardised(*, norm: bool) -> nn.Module:
    """Weights at a level of their fan-in, with norms behind or, for a planted fault, without."""
    return nn.Sequential(
        Normed(3, 128, 1), nn.BatchNorm2d(128), nn.ReLU(), Normed(128, 128, 1),
        nn.BatchNorm2d(128), nn.ReLU(), Normed(128, 6, 1),
        nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Flatten(),
    )  # fmt: skip


@pytest.mark.parametrize("norm", [True, False])
def test_a_level_that_grows_with_the_fan_in_must_be_normed(
    norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = standardised(norm=norm)
    analysis = cerewrite.analyze(model, (X,), estimator="analytic", scope="network")
    plan = cerewrite.plan(analysis, allow="all", members=64, exit_scale="folded")
    wide = cerewrite.apply(plan, model)
    assert wide[6].in_channels > 4 * model[6].in_channels
    monkeypatch.setattr("cerewrite.verifier.signal.FACTOR", 1.5)
    (check,) = check_signal(model, wide, plan, (X,))
    assert check.passed == norm
    assert norm or "'6': the mean square of its gradients" in check.detail
