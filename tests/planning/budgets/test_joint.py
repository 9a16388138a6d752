from __future__ import annotations

import pytest
import torch

import cerewrite
from cerewrite.analysis import find_regions
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Design
from cerewrite.planning.budgets import ends_of, joint_costs, region_cost, seen_from, share_layers
from tests.models import Basic, Inverted, StagedNet

DESIGNS = [Design(3, (4, 5, 2)), Design(2, (7, 3, 6))]


@pytest.mark.parametrize("block", [Basic, Inverted])
def test_changes_of_regions_that_share_layers_add_up_to_the_built_models(
    block: type[torch.nn.Module],
) -> None:
    """The count follows from layers of the built sizes, made by hand."""
    regions, _ = find_regions(trace(StagedNet(block), torch.ones(2, 3, 8, 8)), "stage")
    assert share_layers(regions)
    found = joint_costs("params", regions, DESIGNS)
    weights = {layer.name: layer for region in regions for layer in region.layers}
    before = after = 0
    totals = [[d.multiplicity * n for n in d.widths] for d in DESIGNS]
    sides = [dict(zip(r.classes, zip(r.sizes, after, strict=True), strict=True))
             for r, after in zip(regions, totals, strict=True)]  # fmt: skip
    for name, layer in weights.items():
        groups = {d.multiplicity for r, d in zip(regions, DESIGNS, strict=True) for y in r.layers
                  if y.name == name and y.role == "interior"}  # fmt: skip
        ends = {}
        for region, side in zip(regions, sides, strict=True):
            for y in region.layers:
                if y.name == name and y.sources:
                    ends["in"] = side[region.classes[y.sources[0]]]
                if y.name == name and y.target >= 0:
                    ends["out"] = side[region.classes[y.target]]
        n_in, n_out = (
            ends.get("in", (layer.in_channels,) * 2),
            ends.get("out", (layer.out_channels,) * 2),
        )
        before += layer.kernel * n_in[0] * n_out[0] + layer.bias * n_out[0]
        after += layer.kernel * n_in[1] * n_out[1] // max(groups, default=1)
        after += layer.bias * n_out[1]
    for region, side in zip(regions, sides, strict=True):
        for module in region.modules:
            before += module.params * side[module.widths[0]][0]
            after += module.params * side[module.widths[0]][1]
    assert sum(new - old for old, new in found) == after - before


def test_without_shared_layers_every_region_counts_for_itself() -> None:
    regions, _ = find_regions(trace(StagedNet(), torch.ones(2, 3, 8, 8)), "network")
    assert not share_layers(regions)
    (region,) = regions
    design = Design(2, (3,) * len(region.classes))
    own = region_cost("flops", region, Design(1, region.widths))
    assert joint_costs("flops", regions, [design]) == [(own, region_cost("flops", region, design))]


def test_a_region_is_seen_with_its_neighbours_width() -> None:
    (first, second), _ = find_regions(trace(StagedNet(), torch.ones(2, 3, 8, 8)), "stage")
    seen = seen_from(second, ends_of(first, DESIGNS[0]))
    assert {y.in_channels for y in seen.layers if y.role == "entry"} == {12}
    assert seen_from(second, {}) == second


@pytest.mark.thorough
@pytest.mark.parametrize("block", [Basic, Inverted])
def test_a_plan_that_was_edited_in_a_shared_region_is_recounted(
    block: type[torch.nn.Module],
) -> None:
    torch.manual_seed(0)
    net, x = StagedNet(block, (16, 24)), torch.ones(2, 3, 8, 8)
    plan = cerewrite.plan(
        cerewrite.analyze(net, x, scope="stage", estimator="analytic"), budget="params=1.5x"
    )
    assert len(plan.splits) == 2
    built = cerewrite.apply(plan, net)
    assert sum(p.numel() for p in built.parameters()) == plan.planned.params
