"""Measuring the tangent kernel on the real module: draws, read-outs, gates, statistics."""

from cerewrite.empirical.draws import draw_generator, gaussian_draws
from cerewrite.empirical.gates import Gates, Influences
from cerewrite.empirical.readout import Readout
from cerewrite.empirical.statistics import Ratio, log_variance, needed_draws, relative_variance
from cerewrite.empirical.subject import Subject, make_subject
from cerewrite.empirical.units import Units, find_units

__all__ = [
    "Gates",
    "Influences",
    "Ratio",
    "Readout",
    "Subject",
    "Units",
    "draw_generator",
    "find_units",
    "gaussian_draws",
    "log_variance",
    "make_subject",
    "needed_draws",
    "relative_variance",
]
