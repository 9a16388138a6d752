"""The planner: pure numbers in, pure numbers out; imports no torch."""

from cerewrite.planner.check import check_plan
from cerewrite.planner.make import make_plan, planned_figures

__all__ = ["check_plan", "make_plan", "planned_figures"]
