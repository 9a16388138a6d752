from __future__ import annotations

import pytest
import torch
from torch import nn

from cerewrite.frontend.tracing import trace
from cerewrite.ir import Bundle, bundles, class_groups
from tests.models import ResidualNet


def grouped(*groups: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 1), nn.ReLU()]
    for count in groups:
        layers += [nn.Conv2d(8, 8, 1, groups=count), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((1, 1), ()),
        ((2, 2), (Bundle(2, ("0", "2", "4")),)),
        ((2, 1, 4), (Bundle(2, ("0", "2")), Bundle(4, ("4", "6")))),
        ((2, 4), (Bundle(2, ("0",)), Bundle(4, ("2", "4")))),
        ((8, 8), ()),  # depthwise: each unit is its own
    ],
)
def test_classes_that_layers_with_groups_connect(
    groups: tuple[int, ...], expected: tuple[Bundle, ...]
) -> None:
    assert bundles(trace(grouped(*groups), torch.ones(2, 3, 4, 4))) == expected


def test_hidden_classes_of_resnext_blocks() -> None:
    net = ResidualNet(channels=16, width=8, blocks=2, groups=4)
    found = class_groups(trace(net, torch.ones(2, 3, 8, 8)))
    assert found == {f"blocks.{block}.conv{layer}": 4 for block in (0, 1) for layer in (1, 2)}


def test_a_stream_that_layers_with_groups_read_is_left_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.a, self.b = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.head(x + self.b(self.a(x).relu()))

    assert bundles(trace(Net(), torch.ones(2, 3, 4, 4))) == (Bundle(2, ("a",)),)
