"""The planner: pure numbers in, pure numbers out; imports no torch."""

from cerewrite.planner.auto import compare_scopes
from cerewrite.planner.check import check_plan, recount
from cerewrite.planner.landscape import Landscape, Spot, landscape
from cerewrite.planner.make import make_plan, no_regions, planned_figures

__all__ = [
    "Landscape",
    "Spot",
    "check_plan",
    "compare_scopes",
    "landscape",
    "make_plan",
    "no_regions",
    "planned_figures",
    "recount",
]
