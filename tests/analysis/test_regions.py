from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import find_regions
from cerewrite.ir import Region, Rejection
from cerewrite.tracer import trace
from tests.models import ResidualNet, chain, plain_cnn


def regions(model: nn.Module, x: Tensor) -> tuple[tuple[Region, ...], tuple[Rejection, ...]]:
    return find_regions(trace(model, x), "block")


def test_chain_is_one_region() -> None:
    (region,), _ = regions(chain([8, 6, 4]), torch.ones(2, 7))
    assert region.classes == ("0", "2", "4")
    assert region.sizes == region.widths == (8, 6, 4)
    assert [layer.role for layer in region.layers] == ["entry", "interior", "interior", "exit"]
    assert region.multiplicity == 1


def test_bottlenecks_are_regions_and_the_stream_is_kept() -> None:
    found, rejections = regions(ResidualNet(), torch.ones(2, 3, 8, 8))
    assert [region.name for region in found] == ["blocks.0", "blocks.1"]
    assert found[0].classes == ("blocks.0.conv1", "blocks.0.conv2")
    assert {r.code for r in rejections} == {"residual-stream", "model-output"}


def test_existing_groups_are_a_baseline_multiplicity() -> None:
    found, _ = regions(ResidualNet(groups=4), torch.ones(2, 3, 8, 8))
    assert [(region.multiplicity, region.widths) for region in found] == [(4, (2, 2))] * 2


def test_region_runs_through_depthwise_and_flatten() -> None:
    (region,), _ = regions(plain_cnn(), torch.ones(2, 3, 9, 9))
    assert [(layer.name, layer.role) for layer in region.layers] == [
        ("0", "entry"), ("5", "interior"), ("11", "interior"), ("14", "exit"),
    ]  # fmt: skip
    assert [module.op for module in region.modules] == [
        "batch_norm", "depthwise_conv", "prelu", "group_norm", "layer_norm",
    ]  # fmt: skip


def test_one_hidden_layer_gains_nothing() -> None:
    found, rejections = regions(chain([8]), torch.ones(2, 7))
    assert not found
    assert [r.code for r in rejections if r.where == "0"] == ["one-hidden-layer"]


def test_mixed_groups_are_refused() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    found, rejections = regions(model, torch.ones(2, 3, 4, 4))
    assert not found
    assert "mixed-groups" in {r.code for r in rejections}


@pytest.mark.parametrize("count", [2, 3])
def test_names_are_unique(count: int) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(chain([8, 8], outputs=4) for _ in range(count))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([branch(x) for branch in self.branches], 1)

    found, _ = regions(Branches(), torch.ones(2, 7))
    assert len({region.name for region in found}) == len(found) == count
