"""The planner: pure numbers in, pure numbers out; imports no torch."""

from cerewrite.planner.make import make_plan, planned_figures

__all__ = ["make_plan", "planned_figures"]
