"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.budgets.joint import Design, ends_of, joint_costs, seen_from, share_layers
from cerewrite.budgets.request import needs_times, parse_budgets, write_amount

__all__ = [
    "BUDGETS",
    "Cost",
    "Design",
    "RegionCost",
    "ends_of",
    "joint_costs",
    "needs_times",
    "parse_budgets",
    "region_cost",
    "seen_from",
    "share_layers",
    "write_amount",
]
