"""Measuring the tangent kernel on the real module: draws, read-outs, gates, statistics."""

from cerewrite.estimators.draws.gates import Gates, Influences
from cerewrite.estimators.draws.gaussian import gaussian_draws
from cerewrite.estimators.draws.logits import logit_rows
from cerewrite.estimators.draws.paired import (
    FEWEST_PAIRS,
    log_variance_ratio,
    nu_ratio,
    paired_kernels,
)
from cerewrite.estimators.draws.places import Units
from cerewrite.estimators.draws.readout import Readout
from cerewrite.estimators.draws.rotated import rotated_variance
from cerewrite.estimators.draws.statistics import (
    Ratio,
    combine,
    differ,
    log_variance,
    needed_draws,
    relative_variance,
)
from cerewrite.estimators.draws.subject import Subject, make_subject
from cerewrite.estimators.draws.units import find_units

__all__ = [
    "FEWEST_PAIRS",
    "Gates",
    "Influences",
    "Ratio",
    "Readout",
    "Subject",
    "Units",
    "combine",
    "differ",
    "find_units",
    "gaussian_draws",
    "log_variance",
    "log_variance_ratio",
    "logit_rows",
    "make_subject",
    "needed_draws",
    "nu_ratio",
    "paired_kernels",
    "relative_variance",
    "rotated_variance",
]
