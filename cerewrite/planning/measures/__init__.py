"""Measures of finite width: what a plan makes small. Torch-free."""

from cerewrite.planning.measures.base import MEASURES, Measure
from cerewrite.planning.measures.model import (
    DEFAULT,
    changed_measures,
    figure_of,
    model_measures,
    region_measures,
    reported,
)
from cerewrite.planning.measures.nu import member_nu

__all__ = [
    "DEFAULT",
    "MEASURES",
    "Measure",
    "changed_measures",
    "figure_of",
    "member_nu",
    "model_measures",
    "region_measures",
    "reported",
]
