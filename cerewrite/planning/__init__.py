"""The planner: pure numbers in, pure numbers out; imports no torch."""

from cerewrite.planning.auto import compare_scopes
from cerewrite.planning.check import asked_params, check_plan, recount
from cerewrite.planning.landscape import Landscape, Spot, landscape
from cerewrite.planning.make import make_plan, no_regions
from cerewrite.planning.record import planned_figures

__all__ = [
    "Landscape",
    "Spot",
    "asked_params",
    "check_plan",
    "compare_scopes",
    "landscape",
    "make_plan",
    "no_regions",
    "planned_figures",
    "recount",
]
