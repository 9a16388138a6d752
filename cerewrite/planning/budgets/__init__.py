"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.planning.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.planning.budgets.joint import (
    ends_of,
    joint_costs,
    planned_cost,
    seen_from,
    share_layers,
)
from cerewrite.planning.budgets.request import (
    LATENCY_BATCH,
    TRAINING_BATCH,
    Absolute,
    BudgetLike,
    BudgetRequest,
    Relative,
    batches_for,
    read_requests,
    resolve_budgets,
    write_amount,
)

__all__ = [
    "BUDGETS",
    "LATENCY_BATCH",
    "TRAINING_BATCH",
    "Absolute",
    "BudgetLike",
    "BudgetRequest",
    "Cost",
    "RegionCost",
    "Relative",
    "batches_for",
    "ends_of",
    "joint_costs",
    "planned_cost",
    "read_requests",
    "region_cost",
    "resolve_budgets",
    "seen_from",
    "share_layers",
    "write_amount",
]
