"""`cerewrite.assess`: a model of members on labelled data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.errors import TrainingError
from cerewrite.ir.assessed import Assessment, Bin, Coverage
from cerewrite.training.uncertainty import Uncertainty

BINS = 15
"""Of equal width, between confidences 0 and 1."""

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def assess(
    model: nn.Module | Uncertainty,
    data: Iterable[Any],
    *,
    calibration: Iterable[Any] | None = None,
    **options: Any,
) -> Assessment:
    """Accuracy, loss, calibration, disagreement of members, accuracy against coverage.

    Args:
        model: a classifier whose members can be asked, or its `cerewrite.Uncertainty`.
        data: batches ``(inputs, classes)`` that training has not seen.
        calibration: batches on which the temperature is fitted first; none for the one at hand.
        options: those of `cerewrite.Uncertainty`.

    Raises:
        RewriteError: if members cannot be asked; see `cerewrite.members`.
        TrainingError: if the data are empty, or no classes in the range of the model's outputs.

    References:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning (AAAI 2015).

    Example:
        >>> import cerewrite
        >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
        ...                     nn.Linear(32, 3))
        >>> model = cerewrite.convert(net, torch.ones(2, 4), members=4).model
        >>> found = assess(model, [(torch.randn(60, 4), torch.randint(3, (60,)))])
        >>> found.examples, found.members, sum(item.count for item in found.reliability)
        (60, 4, 60)
    """
    asked = model if isinstance(model, Uncertainty) else Uncertainty(model, **options)
    if calibration is not None:
        asked.calibrate(calibration)
    outputs, targets = asked.collect(data)
    outputs, labels = _rows(outputs, targets, asked.axis)
    own = F.log_softmax(outputs.double() / asked.temperature, -1)
    whole = F.log_softmax(outputs.double().mean(0) / asked.temperature, -1)
    mixed = own.exp().mean(0)
    entropy = torch.special.entr(mixed).sum(-1)
    within = torch.special.entr(own.exp()).sum(-1).mean(0)
    right = whole.argmax(-1) == labels
    dissent = (own.argmax(-1) != whole.argmax(-1)).sum(0)
    count = len(outputs)
    groups = [dissent == number for number in range(count + 1)]
    reliability = bins(whole.exp().amax(-1), right)
    return Assessment(
        model=type(asked.asked.model).__name__,
        examples=len(labels),
        members=count,
        temperature=asked.temperature,
        accuracy=_mean(right),
        nll=float(F.nll_loss(whole, labels)),
        ece=expected_calibration_error(reliability),
        member_accuracy=_mean(own.argmax(-1) == labels),
        member_nll=sum(float(F.nll_loss(one, labels)) for one in own) / count,
        mutual_information=_mean((entropy - within).clamp_min(0.0)),
        dissent=tuple(_mean(group) for group in groups),
        dissent_accuracy=tuple(_mean(right[group]) for group in groups),
        reliability=reliability,
        coverage=_coverage(entropy, right),
    )


def bins(confidence: Tensor, right: Tensor, count: int = BINS) -> tuple[Bin, ...]:
    """Examples in bins of equal width by confidence.

    Args:
        confidence: ``[examples]``, 0 to 1.
        right: whether each is classified rightly, ``[examples]``.
        count: how many bins.

    Example:
        >>> found = bins(torch.tensor([0.4, 0.9]), torch.tensor([False, True]), count=2)
        >>> [(item.high, item.count, item.accuracy) for item in found]
        [(0.5, 1, 0.0), (1.0, 1, 1.0)]
    """
    place = (confidence * count).ceil().long().clamp(1, count) - 1
    found = []
    for index in range(count):
        inside = place == index
        figures = (int(inside.sum()), _mean(confidence[inside]), _mean(right[inside]))
        found.append(Bin(index / count, (index + 1) / count, *figures))
    return tuple(found)


def expected_calibration_error(reliability: Iterable[Bin]) -> float:
    """``sum_b n_b / n |accuracy_b - confidence_b|``.

    Example:
        >>> expected_calibration_error([Bin(0, 0.5, 1, 0.4, 0.0), Bin(0.5, 1, 3, 0.9, 1.0)])
        0.175
    """
    found = tuple(reliability)
    total = sum(item.count for item in found)
    error = sum(item.count * abs(item.accuracy - item.confidence) for item in found)
    return round(error / total, 12)


def _rows(outputs: Tensor, targets: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Logits ``[m, rows, classes]`` and classes ``[rows]``; positions of an example are rows."""
    logits = outputs.movedim(axis + 1, -1).flatten(1, -2)
    labels = targets.flatten()
    if labels.is_floating_point() or len(labels) != logits.shape[1]:
        raise TrainingError(
            f"targets {tuple(targets.shape)} of {targets.dtype} are no classes of outputs "
            f"{tuple(outputs.shape[1:])}",
            advice="yield (inputs, classes), classes as integers; regressors are not assessed",
        )
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[-1]:
        raise TrainingError(
            f"classes from {int(labels.min())} to {int(labels.max())}, but the model has "
            f"{logits.shape[-1]} outputs",
            advice="number the classes from 0",
        )
    return logits, labels.long()


def _coverage(entropy: Tensor, right: Tensor) -> tuple[Coverage, ...]:
    order = entropy.argsort(stable=True)
    found = []
    for share in COVERAGES:
        kept = right[order[: max(1, round(share * len(order)))]]
        found.append(Coverage(len(kept) / len(order), _mean(kept)))
    return tuple(found)


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else 0.0
