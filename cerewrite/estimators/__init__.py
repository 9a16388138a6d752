"""Estimators of finite-width corrections, one file each."""

from cerewrite.estimators.base import (
    ESTIMATORS,
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
)

__all__ = ["ESTIMATORS", "Assumption", "Corrections", "Estimator", "LayerCorrection"]
