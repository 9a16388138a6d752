"""Budgets: costs that a plan may not exceed. Torch-free."""

from cerewrite.budgets.base import BUDGETS, Cost, RegionCost, region_cost
from cerewrite.budgets.request import parse_budgets, write_amount

__all__ = ["BUDGETS", "Cost", "RegionCost", "parse_budgets", "region_cost", "write_amount"]
