from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import find_regions
from cerewrite.analysis.scopes import group_classes
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Region, Rejection
from tests.models import Basic, Inverted, ResidualNet, StagedNet, chain, plain_cnn


def regions(
    model: nn.Module, x: Tensor, scope: str = "block"
) -> tuple[tuple[Region, ...], tuple[Rejection, ...]]:
    return find_regions(trace(model, x), scope)


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


def test_mixed_groups_stay_inside_one_member() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(),
        nn.Conv2d(8, 16, 1, groups=4), nn.ReLU(), nn.Conv2d(16, 3, 1),
    )  # fmt: skip
    (region,), _ = regions(model, torch.ones(2, 3, 4, 4))
    assert region.multiplicity == 1 and region.steps == (2, 4, 4)
    assert [layer.groups for layer in region.layers] == [1, 2, 4, 1]


def test_groups_at_a_kept_width_are_refused() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)
    )
    found, rejections = regions(model, torch.ones(2, 4, 4, 4))
    assert not found
    assert "grouped-boundary" in {r.code for r in rejections}


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


IMAGE = torch.ones(2, 3, 8, 8)


@pytest.mark.parametrize("block", [Basic, Inverted])
def test_stages_are_streams_with_the_hidden_widths_that_write_to_them(
    block: type[nn.Module],
) -> None:
    found, rejections = regions(StagedNet(block), IMAGE, "stage")
    assert [region.scope for region in found] == ["stage", "stage"]
    assert [region.sizes for region in found] == [(8, 10, 10), (14, 12, 14)]
    assert {r.code for r in rejections} == {"model-output"}


def test_a_layer_between_stages_is_an_exit_of_the_one_and_an_entry_of_the_other() -> None:
    (first, second), _ = regions(StagedNet(), IMAGE, "stage")
    shared = {"stage2.0.conv1", "stage2.0.down"}
    assert {y.name for y in first.layers if y.role == "exit"} == shared
    assert {y.name for y in second.layers if y.role == "entry"} == shared
    assert {y.name for y in second.layers if y.role == "exit"} == {"head"}


@pytest.mark.parametrize("block", [Basic, Inverted])
def test_the_network_is_one_region(block: type[nn.Module]) -> None:
    (region,), rejections = regions(StagedNet(block), IMAGE, "network")
    assert len(region.classes) == 6
    roles = {layer.name: layer.role for layer in region.layers}
    assert {name for name, role in roles.items() if role != "interior"} == {"stem.0", "head"}
    assert {r.code for r in rejections} == {"model-output"}


def test_an_exposed_stream_stays_pinned_at_every_scope() -> None:
    class Exposed(ResidualNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(self.stem(x).relu())

    for scope in ("stage", "network"):
        found, rejections = regions(Exposed(), IMAGE, scope)
        assert [region.name for region in found] == ["blocks.0", "blocks.1"]
        assert {r.code for r in rejections} == {"model-output"}


def test_one_hidden_layer_names_the_scope_that_offers_a_region() -> None:
    found, rejections = regions(StagedNet(), IMAGE)
    assert not found
    advice = {r.advice for r in rejections if r.code == "one-hidden-layer"}
    assert advice == {"scope 'stage' splits it with the residual stream: --scope stage"}


def test_one_hidden_layer_without_a_stream_says_that_no_scope_helps() -> None:
    for scope in ("block", "stage", "network"):
        _, rejections = regions(chain([8]), torch.ones(2, 7), scope)
        (refused,) = (r for r in rejections if r.code == "one-hidden-layer")
        assert refused.advice.endswith("no scope offers one here")


class Branches(nn.Module):
    """Residual branches of one hidden layer each."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch(x)
        return x.sum(1)


def test_scopes_are_grouped_once_however_deep_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(*arguments: Any) -> list[tuple[str, ...]]:
        asked.append(arguments[2])
        return group_classes(*arguments)

    monkeypatch.setattr("cerewrite.analysis.regions.group_classes", counted)
    _, rejections = regions(Branches(6), torch.ones(2, 5))
    assert [r.code for r in rejections].count("one-hidden-layer") == 6
    assert sorted(asked) == ["block", "network", "stage"]
