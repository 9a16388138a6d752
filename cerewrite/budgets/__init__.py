"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.budgets.joint import (
    Design,
    ends_of,
    joint_costs,
    planned_cost,
    seen_from,
    share_layers,
)
from cerewrite.budgets.request import (
    TRAINING_BATCH,
    needs_kept,
    needs_times,
    parse_budgets,
    write_amount,
)

__all__ = [
    "BUDGETS",
    "TRAINING_BATCH",
    "Cost",
    "Design",
    "RegionCost",
    "ends_of",
    "joint_costs",
    "needs_kept",
    "needs_times",
    "parse_budgets",
    "planned_cost",
    "region_cost",
    "seen_from",
    "share_layers",
    "write_amount",
]
