"""Slices of concatenations: the units that lie there, not a mean over all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.estimators.analytic import propagate
from cerewrite.frontend.tracing import trace
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import concatenate, cut, gaussian_value, scalar


class Parts(nn.Module):
    """Two layers of unlike widths and scales, side by side on an axis, read apart again."""

    def __init__(self, axis: int, *, whole: bool) -> None:
        super().__init__()
        self.axis, self.whole = axis, whole
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(8, 32 if axis == 2 else 16)
        self.own = nn.Linear(16, 8)
        self.other = nn.Linear(32 if axis == 2 else 16, 8)

    def forward(self, x: Tensor) -> Tensor:
        # the first is twice as large, so that units that are mixed up are seen
        parts = [2 * self.first(x), self.second(x).tanh()]
        if self.whole:
            joined = torch.cat(parts, self.axis) + 0.0
            size = parts[0].shape[self.axis]
            here, there = (slice(None),) * self.axis, (slice(None),) * (2 - self.axis)
            parts = [joined[*here, :size, *there], joined[*here, size:, *there]]
        return self.own(parts[0].relu()) + self.other(parts[1].relu())


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_are_the_parts_themselves(axis: int) -> None:
    found = []
    for whole in (False, True):
        torch.manual_seed(0)
        net = Parts(axis, whole=whole)
        found.append(analyze(trace(net, torch.randn(2, 4, 8)), net, estimator="analytic"))
    for direct, sliced in zip(found[0].layers, found[1].layers, strict=True):
        assert sliced.kappa == pytest.approx(direct.kappa, rel=1e-9)
    assert found[1].nu.value == pytest.approx(found[0].nu.value, rel=1e-6)


def test_a_kind_that_is_cut_through_is_kept_in_part() -> None:
    value = concatenate(
        [
            (1, gaussian_value(scalar(1.0), scalar(0.0))),
            (3, gaussian_value(scalar(4.0), scalar(0.0))),
        ]
    )
    first, second = (part.unit for part in value.parts)
    whole = cut(value, 0.25, 1.0)
    assert [part.unit for part in whole.parts] == [second]
    mixed = cut(value, 0.0, 0.5).parts
    assert [part.weight for part in mixed] == pytest.approx([0.5, 0.5])
    assert mixed[0].unit is first
    assert mixed[1].unit is not second
    assert mixed[1].unit.terms[0].share == pytest.approx(1 / 3)


class Block(nn.Module):
    """A stream of 8 channels in front, to which each block adds, and 2 more behind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.relu())
        return torch.cat([x[:, :8] + y[:, :8], x[:, 8:], y[:, 8:]], 1)


def test_kinds_do_not_multiply_from_block_to_block() -> None:
    net = nn.Sequential(*[Block(10 + 2 * block) for block in range(12)], nn.Linear(34, 4))
    context = MomentContext(net, traced := trace(net, torch.randn(2, 10)), gain=2.0)
    propagate(traced, context)
    assert len(traced.layers) == 13
    assert 13 < len(context.reads) < 13 * 14
