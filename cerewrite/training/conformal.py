"""Split conformal prediction, by MAPIE: a model's scores stand for the features of its estimator.

The method is the library's; this file hands it scores that are computed already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cerewrite.errors import TrainingError, UsageError

Conformal = Callable[[Tensor], Tensor]
"""From scores to prediction sets."""


def conformalise(scores: Tensor, targets: Tensor, task: str, confidence: float) -> Conformal:
    """Fit prediction sets.

    Args:
        scores: probabilities ``[examples, classes]``, or values ``[examples, 1]``.
        targets: classes or values, ``[examples]``.
        task: ``classification`` or ``regression``.
        confidence: of the sets, 0 to 1.

    Returns:
        From scores to ``[batch, classes]`` of bool, or to intervals ``[batch, 2]``.

    Raises:
        UsageError: if MAPIE is not installed, or the confidence is out of range.
        TrainingError: if there are too few examples, or outputs have another shape.

    References:
        Cordier et al., Flexible and Systematic Uncertainty Estimation with Conformal Prediction
        via the MAPIE library (PMLR 204).
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence}", advice="give a number between 0 and 1")
    least = math.ceil(1 / (1 - confidence)) + 1
    if len(targets) < least:
        raise TrainingError(
            f"{len(targets)} examples are too few for sets of confidence {confidence}",
            advice=f"give at least {least}, better ten times as many",
        )
    if scores.dim() != 2 or (task == "regression" and scores.shape[1] != 1):
        raise TrainingError(
            f"prediction sets need one target per example, the outputs are {tuple(scores.shape)}",
            advice="select one output: Uncertainty(model, select=...)",
        )
    try:
        from mapie.classification import SplitConformalClassifier
        from mapie.regression import SplitConformalRegressor
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    except ImportError as error:
        raise UsageError(
            f"prediction sets are made by the library MAPIE, which is not installed: {error}",
            advice="pip install 'cerewrite[conformal]'",
        ) from None

    class Classes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped library
        """Features are probabilities already."""

        classes_ = torch.arange(scores.shape[1]).numpy()
        n_features_in_ = scores.shape[1]

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, features: Any) -> Any:
            return features

        def predict(self, features: Any) -> Any:
            return features.argmax(1)

    class Values(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        """The feature is the value already."""

        n_features_in_ = 1

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, features: Any, targets: Any) -> Any:
            return self

        def predict(self, features: Any) -> Any:
            return features[:, 0]

    options = {"confidence_level": confidence, "prefit": True}
    known, truth = scores.double().cpu().numpy(), targets.flatten().cpu().numpy()
    if task == "classification":
        classifier = SplitConformalClassifier(Classes(), **options).conformalize(known, truth)
        return lambda new: torch.from_numpy(
            classifier.predict_set(new.double().cpu().numpy())[1][..., 0]
        )
    regressor = SplitConformalRegressor(Values(), **options).conformalize(known, truth)
    return lambda new: torch.from_numpy(
        regressor.predict_interval(new.double().cpu().numpy())[1][..., 0]
    )
