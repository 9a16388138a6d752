"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.planning.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.planning.budgets.joint import (
    Design,
    ends_of,
    joint_costs,
    planned_cost,
    seen_from,
    share_layers,
)
from cerewrite.planning.budgets.request import (
    LATENCY_BATCH,
    TRAINING_BATCH,
    batches_for,
    budget_parts,
    parse_budgets,
    write_amount,
)

__all__ = [
    "BUDGETS",
    "LATENCY_BATCH",
    "TRAINING_BATCH",
    "Cost",
    "Design",
    "RegionCost",
    "batches_for",
    "budget_parts",
    "ends_of",
    "joint_costs",
    "parse_budgets",
    "planned_cost",
    "region_cost",
    "seen_from",
    "share_layers",
    "write_amount",
]
