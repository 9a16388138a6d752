"""Subclasses of stock layers with a forward of their own keep it at another width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cerewrite
from cerewrite.errors import RewriteError, VerificationError
from cerewrite.frontend.tracing import trace
from cerewrite.ops import resizable_module

resize_batch_norm = resizable_module("batch_norm").resize


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation inside."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        training = self.training
        mean, variance = self.running_mean, self.running_var
        x = F.batch_norm(x, mean, variance, self.weight, self.bias, training, 0.1, self.eps)
        return self.act(self.drop(x))


class GroupAct(nn.GroupNorm):
    """A group norm with an activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class Same(nn.Conv2d):
    """A convolution that pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 2, 1, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardised(nn.Conv2d):
    """A convolution that computes its weight."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, 1, self.dilation, self.groups)


class Decayed(NormAct):
    """A norm that reads its scale twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.weight.mean()


class Remembering(NormAct):
    """A norm that keeps its width in an attribute of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.dim = width


class Slopes(NormAct):
    """A norm whose activation has a value per channel."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.PReLU(width)


def network(conv: type[nn.Conv2d] = Same, norm: Callable[[int], nn.Module] = NormAct) -> nn.Module:
    """Three convolutions of width 24, one of them depthwise, and a read-out."""
    torch.manual_seed(0)
    own = {"padding": 1} if conv is nn.Conv2d else {}
    return nn.Sequential(
        conv(3, 24, 3, **own), norm(24), conv(24, 24, 3, **own), norm(24),
        conv(24, 24, 3, groups=24, **own), norm(24), conv(24, 24, 3, bias=False, **own), norm(24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


NORMS = [NormAct, lambda width: GroupAct(4, width)]


@pytest.mark.thorough
@pytest.mark.parametrize("norm", NORMS, ids=["batch", "group"])
def test_they_are_split_with_their_forward(norm: Callable[[int], nn.Module]) -> None:
    model, x = network(norm=norm), torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = cerewrite.convert(model, (x,), budget="params", estimator="analytic")
    (split,) = result.plan.splits
    assert split.multiplicity > 1 and result.verification.passed
    membership = next(c for c in result.verification.checks if c.name == "membership")
    assert membership.value <= 1e-10
    counted = sum(p.numel() for p in result.model.parameters())
    assert counted == result.plan.planned.params
    kinds = {type(m) for m in result.model.modules()}
    assert kinds & {NormAct, GroupAct} and Same in kinds and nn.Conv2d not in kinds
    with torch.no_grad():
        for parameter in result.model.parameters():
            parameter.add_(1.0)
    back = cerewrite.revert(result.model)
    assert {type(m) for m in back.modules()} == {type(m) for m in model.modules()}
    assert all(torch.equal(before[name], value) for name, value in back.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("conv", "norm", "reason"),
    [
        (Standardised, NormAct, "not all that reads|does not read its weight"),
        (Same, Decayed, "not all that reads"),
        (Same, Remembering, "'dim'"),
        (Same, Slopes, "PReLU"),
    ],
)
def test_what_reads_more_than_the_stock_operator_does_is_refused(
    conv: type[nn.Conv2d], norm: type[nn.Module], reason: str
) -> None:
    traced = trace(network(conv, norm), (torch.randn(2, 3, 8, 8),))
    pins = [pin for width in traced.widths for pin in width.pins if pin.code == "custom-module"]
    assert pins
    assert any(any(part in pin.reason for part in reason.split("|")) for pin in pins)


def test_settings_and_children_of_a_twin() -> None:
    old = NormAct(4).eval()
    old.weight.data = torch.tensor([1.0, 2.0, 3.0, 6.0])
    old.bias.requires_grad_(False)
    new = resize_batch_norm(old, 2, 3)
    assert type(new) is NormAct and not new.training and new.num_features == 6
    squares = new.weight.unflatten(0, (2, 3)).square().mean(1)
    torch.testing.assert_close(squares, old.weight.square().mean().expand(2))
    assert not new.bias.requires_grad
    assert new.act is not old.act and old.num_features == 4 and len(old.weight) == 4


def test_a_norm_that_holds_more_is_not_resized() -> None:
    with pytest.raises(RewriteError, match="'dim'"):
        resize_batch_norm(Remembering(4), 2, 3)


class ByWidth(nn.Conv2d):
    """A convolution that scales with its own width."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, 1, 1, self.dilation, self.groups)
        return y * self.in_channels**-0.5


class FourGroups(nn.GroupNorm):
    """A group norm whose forward has the number of groups written in it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 4, self.weight, self.bias, self.eps)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("conv", "norm"), [(ByWidth, NormAct), (Same, lambda width: FourGroups(4, width))]
)
def test_a_forward_that_knows_the_width_fails_the_verification(
    conv: type[nn.Conv2d], norm: Callable[[int], nn.Module]
) -> None:
    with pytest.raises(VerificationError, match="membership"):
        cerewrite.convert(
            network(conv, norm), (torch.randn(2, 3, 8, 8),), budget="params", estimator="analytic"
        )
