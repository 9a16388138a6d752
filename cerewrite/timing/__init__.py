"""Measured time: of layers, remembered for the planner, and of whole models in every engine."""

from cerewrite.timing.comparison import bench
from cerewrite.timing.engines import ENGINES
from cerewrite.timing.interleave import Sample, interleave
from cerewrite.timing.profiles import step_profile, with_step_profile
from cerewrite.timing.store import Store
from cerewrite.timing.timer import profile, profile_step

__all__ = [
    "ENGINES",
    "Sample",
    "Store",
    "bench",
    "interleave",
    "profile",
    "profile_step",
    "step_profile",
    "with_step_profile",
]
