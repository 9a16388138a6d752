"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.planning.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.planning.budgets.held import (
    HELD,
    LATENCY_BATCH,
    TRAINING_BATCH,
    Allowed,
    batches_for,
    held_requests,
    read_allowances,
    resolve_budgets,
)
from cerewrite.planning.budgets.joint import (
    changed_cost,
    ends_of,
    joint_costs,
    planned_cost,
    seen_from,
    share_layers,
)
from cerewrite.planning.budgets.request import (
    Absolute,
    BudgetLike,
    BudgetRequest,
    Relative,
    read_requests,
    write_amount,
)

__all__ = [
    "BUDGETS",
    "HELD",
    "LATENCY_BATCH",
    "TRAINING_BATCH",
    "Absolute",
    "Allowed",
    "BudgetLike",
    "BudgetRequest",
    "Cost",
    "RegionCost",
    "Relative",
    "batches_for",
    "changed_cost",
    "ends_of",
    "held_requests",
    "joint_costs",
    "planned_cost",
    "read_allowances",
    "read_requests",
    "region_cost",
    "resolve_budgets",
    "seen_from",
    "share_layers",
    "write_amount",
]
