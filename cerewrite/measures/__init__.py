"""Measures of finite width: what a plan makes small. Torch-free."""

from cerewrite.measures.base import MEASURES, Measure
from cerewrite.measures.nu import baseline_nu, compose, member_nu, region_nu, remaining_kappas

__all__ = [
    "MEASURES",
    "Measure",
    "baseline_nu",
    "compose",
    "member_nu",
    "region_nu",
    "remaining_kappas",
]
