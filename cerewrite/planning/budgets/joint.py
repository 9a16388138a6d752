"""Costs of regions that share layers: an exit of one that is an entry of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cerewrite.ir import Budget, Design, Plan, Region, RegionLayer
from cerewrite.planning.budgets.base import region_cost

Ends = Mapping[tuple[str, str], int]
"""Channels at the ``source`` or ``target`` end of a layer, by the layer's name and the end."""


def ends_of(region: Region, design: Design) -> dict[tuple[str, str], int]:
    """What other regions see of this one in a design: channels at its end of shared layers."""
    members, widths = design.multiplicity, design.widths
    ends = {}
    for layer in region.layers:
        if layer.role == "exit":
            ends[layer.name, "source"] = members * layer.reads(widths)
        elif layer.role == "entry":
            ends[layer.name, "target"] = members * layer.written * widths[layer.target]
    return ends


def seen_from(region: Region, ends: Ends) -> Region:
    """The region with the far ends of its entries and exits at other widths.

    Args:
        region: as the analysis found it.
        ends: of other regions, from `ends_of`; layers that are not named keep their channels.
    """

    def seen(layer: RegionLayer) -> RegionLayer:
        if layer.role == "entry":
            channels = ends.get((layer.name, "source"), layer.in_channels)
            return layer if channels == layer.in_channels else replace(layer, in_channels=channels)
        if layer.role == "exit":
            channels = ends.get((layer.name, "target"), layer.out_channels)
            return (
                layer if channels == layer.out_channels else replace(layer, out_channels=channels)
            )
        return layer

    return replace(region, layers=tuple(map(seen, region.layers)))


def share_layers(regions: Sequence[Region]) -> bool:
    """Whether a layer belongs to two of the regions."""
    names = [layer.name for region in regions for layer in region.layers]
    return len(set(names)) < len(names)


def joint_costs(
    name: str, regions: Sequence[Region], designs: Sequence[Design]
) -> list[tuple[int, int]]:
    """Cost of each region before and after its design, such that the changes add up exactly.

    A layer that two regions share is counted in both: for the earlier region with its far end as
    it was, for the later one with its far end as the earlier region's design has made it.

    Args:
        name: registered cost.
        regions: in execution order.
        designs: one per region.

    Example:
        >>> up = RegionLayer("up", "linear", "entry", (), 0, 10, 8, 1, 1, False)
        >>> down = RegionLayer("down", "linear", "exit", (0,), -1, 8, 6, 1, 1, False)
        >>> first = Region("first", "stage", ("up",), (8,), 1, (up, down), ())
        >>> enter = RegionLayer("down", "linear", "entry", (), 0, 8, 6, 1, 1, False)
        >>> second = Region("second", "stage", ("down",), (6,), 1, (enter,), ())
        >>> joint_costs("params", [first, second], [Design(1, (5,)), Design(1, (4,))])
        [(128, 80), (30, 20)]
    """
    ends: dict[tuple[str, str], int] = {}
    costs = []
    for region, design in zip(regions, designs, strict=True):
        seen = seen_from(region, ends)
        before = region_cost(name, seen, region.design)
        costs.append((before, region_cost(name, seen, design)))
        ends |= ends_of(region, design)
    return costs


def planned_cost(plan: Plan, budget: Budget) -> int:
    """The whole model's cost under a plan: `Budget.before` and what the splits change.

    Args:
        plan: the plan; splits of unknown regions are not counted.
        budget: one of its budgets; without ``before``, on what its figures state.

    Returns:
        The cost in the budget's unit, at least 0.
    """
    if not budget.before:
        return int(getattr(plan.planned, budget.cost, 0))
    return changed_cost(plan, budget.cost, budget.before)


def changed_cost(plan: Plan, cost: str, before: int) -> int:
    """The whole model's cost under a plan, from the original's and what the splits change.

    Args:
        plan: the plan; splits of unknown regions are not counted.
        cost: registered cost.
        before: the original model's.
    """
    designs = {split.region: split.design for split in plan.splits}
    regions = [region for region in plan.regions if region.name in designs]
    changes = joint_costs(cost, regions, [designs[region.name] for region in regions])
    return max(0, before + sum(after - before for before, after in changes))
