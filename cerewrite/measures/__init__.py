"""Measures of finite width: what a plan makes small. Torch-free."""

from cerewrite.measures.base import MEASURES, Measure, remaining_kappas
from cerewrite.measures.model import DEFAULT, REPORTED, model_measures, region_measures
from cerewrite.measures.nu import compose, member_nu, region_nu

__all__ = [
    "DEFAULT",
    "MEASURES",
    "REPORTED",
    "Measure",
    "compose",
    "member_nu",
    "model_measures",
    "region_measures",
    "region_nu",
    "remaining_kappas",
]
