"""Weight-standardised convolutions (docs/theory.md, section 36): known, split, proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cerewrite
from cerewrite.errors import RewriteError
from cerewrite.frontend.tracing.ladder import LADDER
from cerewrite.frontend.tracing.raw_weights import with_raw_weights
from cerewrite.ir import Plan
from cerewrite.ops.standardised import derived, level_of, standardises
from tests.standardised import (
    ByHand,
    InForward,
    Normed,
    PerKernel,
    Scaled,
    Set,
    Uncentred,
    Whole,
)

Make = Callable[[int, int], nn.Module]


def scaled(n_in: int, n_out: int) -> nn.Module:
    return Scaled(n_in, n_out, 3, padding=1, gamma=1.7, gain=0.5)


def plain(n_in: int, n_out: int) -> nn.Module:
    return Normed(n_in, n_out, 3, padding=1)


def by_hand(n_in: int, n_out: int) -> nn.Module:
    return ByHand(n_in, n_out, 3, padding=1)


def network(conv: Make, norms: bool = False) -> nn.Module:
    """Three hidden widths between a stem and a head, both standardised too."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 24), (24, 24), (24, 24), (24, 8)):
        layers += [conv(n_in, n_out), *([nn.BatchNorm2d(n_out)] if norms else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


@pytest.mark.parametrize("conv", [Normed(4, 6, 3), Scaled(4, 6, 3), Normed(4, 4, 3, groups=4),
    Scaled(4, 8, 1, groups=2), ByHand(4, 6, 3), InForward(4, 6, 5), Set(4, 6, 3, level=2.0)],
    ids=lambda conv: type(conv).__name__)  # fmt: skip
def test_they_are_known_by_what_they_compute(conv: nn.Module) -> None:
    assert standardises(conv)
    assert standardises(conv.to("meta"))


@pytest.mark.parametrize("conv", [Whole(4, 6, 3), Uncentred(4, 6, 3), PerKernel(4, 6, 3),
    nn.Conv2d(4, 6, 3), nn.Linear(4, 6), Normed(4, 4, 1, groups=4)],
    ids=lambda conv: type(conv).__name__)  # fmt: skip
def test_others_are_none(conv: nn.Module) -> None:
    assert not standardises(conv)


def test_the_level_is_that_of_the_weight_that_is_read() -> None:
    assert level_of(Scaled(6, 12, 3, gamma=1.5, gain=0.5)) == pytest.approx(0.75**2, rel=1e-3)
    assert level_of(Normed(6, 12, 3).to("meta")) == pytest.approx(54, rel=1e-3)
    assert level_of(InForward(6, 12, 5)) == pytest.approx(1, rel=1e-3)


def test_numbers_follow_the_fan_in_or_are_refused() -> None:
    conv = Scaled(8, 16, 3, gamma=1.7)
    assert derived(conv, 2, 16, 1) == pytest.approx({"scale": 2 * conv.scale}, rel=1e-12)
    assert derived(conv, 32, 16, 4) == pytest.approx({"scale": conv.scale}, rel=1e-12)
    assert derived(Normed(8, 16, 3), 2, 16, 1) == {}
    with pytest.raises(RewriteError, match="by 'scale', and what that is derived from cannot be"):
        derived(Set(8, 16, 3, level=0.1), 2, 16, 1)


@pytest.mark.parametrize("rung", [name for name, _ in LADDER])
def test_every_rung_lets_them_read_the_weight_itself(rung: str) -> None:
    model = nn.Sequential(Scaled(3, 4, 3))
    ops = dict(LADDER)[rung](model, (torch.ones(2, 3, 5, 5),), {})
    ops = with_raw_weights(ops, model)
    assert [op.target for op in ops if op.target not in ("parameter", "constant", "output")] == [
        "input",
        "conv2d",
    ]


class Bottleneck(nn.Module):
    """A stream that a standardised exit adds to."""

    def __init__(self, conv: Make) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(8, 16), conv(16, 16), conv(16, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return self.head(x.mean((2, 3)))


def planned(net: nn.Module, x: Tensor, scope: str) -> Plan:
    analysed = cerewrite.analyze(net, x, estimator="analytic", scope=scope)
    return cerewrite.plan(analysed, budget="params=0.8x", allow="all", min_width=2)


@pytest.mark.thorough
@pytest.mark.parametrize(("conv", "norms"), [(scaled, False), (by_hand, True)])
def test_conversions_prove_their_members(conv: Make, norms: bool) -> None:
    net, x = network(conv, norms).eval(), torch.randn(2, 3, 8, 8)
    plan = planned(net, x, "network")
    model = cerewrite.apply(plan, net)
    assert cerewrite.verify(net, model, plan, x).passed
    inner = model[3 if norms else 2]
    assert type(inner) is type(net[2]) if not norms else isinstance(inner, ByHand)
    assert inner.groups > 1


@pytest.mark.parametrize("conv", [scaled, plain, by_hand])
def test_exits_standardise_all_members_together(conv: Make) -> None:
    net, x = Bottleneck(conv).eval(), torch.randn(2, 8, 6, 6)
    if conv is scaled:
        nn.init.uniform_(net.conv2.gain, 0.3, 0.7)
    plan = planned(net, x, "block")
    model = cerewrite.apply(plan, net)
    assert (model.conv2.groups, model.conv3.groups) == (plan.splits[0].multiplicity, 1) != (1, 1)
    found = cerewrite.verify(net, model, plan, x)
    assert found.passed
    assert {check.name for check in found.checks} >= {"membership", "params", "signal"}
    if conv is scaled:
        for layer in (model.conv1, model.conv2, model.conv3):
            assert layer.scale == pytest.approx(1.7 * layer.weight[0].numel() ** -0.5)
        square = net.conv2.gain.square().mean().item()
        assert model.conv2.gain.square().mean().item() == pytest.approx(square, rel=1e-5)
    with torch.no_grad():
        model.conv3.weight[:, :1] += 1  # as after a step of training: still members
    assert cerewrite.verify(net, model, plan, x).passed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": "transfer"}, "a warm start cannot carry its weights"),
        ({"exit_scale": "mean"}, "cannot carry a multiplier"),
    ],
)
def test_what_their_exits_cannot_do_is_refused(options: dict[str, str], reason: str) -> None:
    net, x = Bottleneck(plain).eval(), torch.randn(2, 8, 6, 6)
    plan = planned(net, x, "block")
    with pytest.raises(RewriteError, match=reason):
        cerewrite.apply(replace(plan, **options), net)
