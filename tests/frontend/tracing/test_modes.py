"""Modules that run in training only, and operators that the exporter hides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace


class Auxiliary(nn.Module):
    """A chain of linears with a head that runs in training only."""

    def __init__(self, head: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.aux = nn.Sequential(nn.Linear(16, 4)) if head else None
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        seen = x
        for index, layer in enumerate(self.layers):
            x = layer(x).relu()
            seen = x if index == 3 else seen
        if self.training and self.aux is not None:
            return self.last(x), self.aux(nn.functional.dropout(seen, 0.5))
        return self.last(x)


def test_what_a_head_in_training_reads_keeps_its_width() -> None:
    net = Auxiliary().train()
    flags = [module.training for module in net.modules()]
    traced = trace(net, torch.ones(2, 16))
    assert [module.training for module in net.modules()] == flags
    pinned = {w.name: [p.code for p in w.pins] for w in traced.widths if w.pins}
    assert pinned == {"layers.3": ["training-only"], "last": ["model-output"]}
    (pin,) = next(w for w in traced.widths if w.name == "layers.3").pins
    assert "'aux'" in pin.reason and "aux_logits" in pin.advice
    assert not any(w.pins for w in trace(Auxiliary(head=False), torch.ones(2, 16)).widths[:-1])


@pytest.mark.parametrize("head", [True, False])
def test_the_rest_is_converted_and_holds_in_both_modes(head: bool) -> None:
    torch.manual_seed(0)
    result = cerewrite.convert(
        Auxiliary(head), (torch.randn(2, 16),), budget="params", estimator="analytic"
    )
    assert result.verification.passed
    assert result.plan.splits


def test_operators_behind_the_exporter_are_seen_by_the_next_rung() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                x = self.first(x)
            return self.last(x.relu())

    traced = trace(Cast(), torch.ones(2, 4))
    assert traced.frontend != "export"
    assert [layer.name for layer in traced.layers] == ["first", "last"]
