"""`cerewrite.Uncertainty`: what the members' spread says about an input, calibrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.errors import TrainingError, UsageError
from cerewrite.rewriting.members import Members, members
from cerewrite.runtime.modes import evaluating
from cerewrite.runtime.trees import tensors
from cerewrite.training.conformal import Conformal, conformalise
from cerewrite.training.losses import device_of

Task = Literal["classification", "regression"]

LEAST = 50
"""Fewer validation examples than these fit no temperature."""


@dataclass(frozen=True, slots=True)
class Uncertain:
    """What the members say about a batch; entropies in nats.

    Attributes:
        mean: the model's own output, ``[batch, ...]``.
        spread: standard deviation of the members' outputs, ``[batch, ...]``, at least 0.
        probabilities: of the model's output at the temperature, ``softmax(mean / T)``; None for
            regression.
        entropy: entropy of the members' mean probabilities, per example, 0 to log(classes):
            what is uncertain altogether; None for regression.
        mutual_information: that entropy less the members' mean entropy, at least 0: what the
            members disagree on; None for regression.
        variance: variance between the members at the calibrated scale, ``[batch, ...]``; None for
            classification.
    """

    mean: Tensor
    spread: Tensor
    probabilities: Tensor | None = None
    entropy: Tensor | None = None
    mutual_information: Tensor | None = None
    variance: Tensor | None = None


class Uncertainty:
    """A model that can be asked how sure it is: one forward, all members.

    Classification: the model's probabilities, their entropy, and the mutual information of class
    and member. Regression: the variance between members. `calibrate` fits one number on a
    validation set: the temperature T of the logits, or the scale of the members' spread.
    `conformalise` fits prediction sets that hold the truth with a given probability.

    Args:
        model: a model whose members can be asked, or what `cerewrite.members` returned.
        task: ``classification`` (outputs are logits) or ``regression``.
        select: picks the tensor from the model's output; needed where it holds several.
        axis: the axis of the classes in the model's output, as in `torch.nn.CrossEntropyLoss`.
        options: those of `cerewrite.members`.

    Attributes:
        temperature: T for classification, above 0; 1 before `calibrate`.
        scale: of the members' spread for regression; 1 before `calibrate`.

    Raises:
        UsageError: if the task is unknown.
        RewriteError: see `cerewrite.members`.

    References:
        Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599); Depeweg et al.,
        Decomposition of Uncertainty (arXiv 1710.07283).

    Example:
        >>> import cerewrite
        >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
        ...                     nn.Linear(32, 3))
        >>> model = cerewrite.convert(net, torch.ones(2, 4), members=4).model
        >>> found = Uncertainty(model)(torch.randn(5, 4))
        >>> found.probabilities.shape, bool((found.mutual_information >= 0).all())
        (torch.Size([5, 3]), True)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        task: Task = "classification",
        select: Callable[[Any], Tensor] | None = None,
        axis: int = 1,
        **options: Any,
    ) -> None:
        if task not in ("classification", "regression"):
            raise UsageError(f"unknown task '{task}'", advice="choose classification or regression")
        self.asked = model if isinstance(model, Members) else members(model, **options)
        self.task, self.select, self.axis = task, select, axis
        self.temperature = 1.0
        self.scale = 1.0
        self._conformal: Conformal | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Uncertain:
        """Ask all members about a batch, in evaluation mode and without gradients."""
        outputs = self.outputs(*args, **kwargs)
        mean, spread = outputs.mean(0), outputs.std(0)
        if self.task == "regression":
            return Uncertain(mean, spread, variance=(self.scale * spread).square())
        own = F.softmax(outputs / self.temperature, self.axis + 1)
        total = _entropy(own.mean(0), self.axis)
        within = _entropy(own, self.axis + 1).mean(0)
        return Uncertain(
            mean,
            spread,
            probabilities=F.softmax(mean / self.temperature, self.axis),
            entropy=total,
            mutual_information=(total - within).clamp_min(0.0),
        )

    def outputs(self, *args: Any, **kwargs: Any) -> Tensor:
        """Every member's output, ``[m, batch, ...]``, in evaluation mode and without gradients.

        Raises:
            UsageError: if the model returns several tensors, or none with fractions.
        """
        with evaluating(self.asked.model, self.asked), torch.no_grad():
            found = self.asked(*args, **kwargs)
        if self.select is not None:
            return self.select(found)
        floating = [tensor for tensor in tensors(found) if tensor.is_floating_point()]
        if len(floating) != 1:
            raise UsageError(
                f"the model returns {len(floating)} floating-point tensors",
                advice="say which: Uncertainty(model, select=lambda output: output['logits'])",
            )
        return floating[0]

    def calibrate(self, loader: Iterable[Any]) -> float:
        """Fit the temperature, or the scale of the spread, on a validation set.

        Classification: T that makes the negative log-likelihood of ``softmax(mean / T)`` least.
        Regression: ``s^2 = mean(residual^2 / variance)``, the most likely scale of a Gaussian.

        Args:
            loader: batches ``(inputs, targets)`` that training has not seen.

        Returns:
            the temperature, or the scale.

        Raises:
            TrainingError: if there are fewer than 50 examples, or no scale fits them.
        """
        outputs, targets = self.collect(loader)
        if len(targets) < LEAST:
            raise TrainingError(
                f"{len(targets)} validation examples are too few to calibrate on",
                advice=f"give at least {LEAST}, better some hundreds",
            )
        if self.task == "classification":
            self.temperature = fit_temperature(outputs.mean(0), targets, self.axis)
            return self.temperature
        variance = outputs.double().var(0)
        ratio = (outputs.double().mean(0) - targets).square() / variance
        self.scale = float(ratio.mean().sqrt())
        if not 0 < self.scale < float("inf"):
            raise TrainingError(
                f"the members' spread has no scale that fits: {self.scale}",
                advice="check that members differ: train them with MemberLoss",
            )
        return self.scale

    def conformalise(self, loader: Iterable[Any], confidence: float = 0.9) -> None:
        """Fit prediction sets on examples that neither training nor `calibrate` has seen.

        Split conformal prediction by the library MAPIE: classes of least ambiguous sets (LAC), or
        intervals of absolute residuals. A set holds the truth with probability ``confidence`` for
        examples exchangeable with these.

        Args:
            loader: batches ``(inputs, targets)``.
            confidence: of the sets, 0 to 1.

        Raises:
            UsageError: if MAPIE is not installed, or the confidence is out of range.
            TrainingError: if there are too few examples for that confidence.
        """
        outputs, targets = self.collect(loader)
        self._conformal = conformalise(self._scores(outputs), targets, self.task, confidence)

    def sets(self, *args: Any, **kwargs: Any) -> Tensor:
        """Prediction sets of a batch: ``[batch, classes]`` of bool, or intervals ``[batch, 2]``.

        Raises:
            UsageError: if `conformalise` has not been called.
        """
        if self._conformal is None:
            raise UsageError(
                "there are no prediction sets yet", advice="call conformalise(loader) first"
            )
        return self._conformal(self._scores(self.outputs(*args, **kwargs)))

    def _scores(self, outputs: Tensor) -> Tensor:
        """Probabilities ``[batch, classes]``, or values ``[batch, 1]``."""
        mean = outputs.mean(0)
        if self.task == "regression":
            return mean.reshape(len(mean), -1)
        return F.softmax(mean / self.temperature, self.axis)

    def collect(self, loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Members' outputs ``[m, examples, ...]`` and targets of a whole loader, on the CPU.

        Raises:
            TrainingError: if the loader is empty or yields no pairs.
        """
        outputs, targets = [], []
        device = device_of(self.asked)
        for batch in loader:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TrainingError(
                    f"a batch is a {type(batch).__name__}, not a pair of inputs and targets",
                    advice="yield (inputs, targets); inputs may be a tuple or a dict",
                )
            given = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), batch[0])
            if isinstance(given, Mapping):
                found = self.outputs(**given)
            else:
                found = self.outputs(*given) if isinstance(given, tuple) else self.outputs(given)
            outputs.append(found.cpu())
            targets.append(torch.as_tensor(batch[1]).cpu())
        if not outputs:
            raise TrainingError("the loader gave no batches", advice="give at least one batch")
        return torch.cat(outputs, 1), torch.cat(targets)


def fit_temperature(logits: Tensor, targets: Tensor, axis: int = 1) -> float:
    """The temperature of least negative log-likelihood; the problem is convex in 1 / T.

    Args:
        logits: ``[examples, classes, ...]``.
        targets: classes, ``[examples, ...]``.
        axis: of the classes.

    Raises:
        TrainingError: if none is least: every example is right by any margin.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]] * 4)
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 3)  # 2 / log(3)
        1.82
    """
    scores = logits.double().movedim(axis, -1).flatten(0, -2)
    labels = targets.flatten().long()

    def slope(inverse: float) -> float:
        """Derivative of the loss by 1 / T."""
        weights = F.softmax(inverse * scores, -1)
        return float(((weights * scores).sum(-1) - scores.gather(1, labels[:, None])[:, 0]).mean())

    low, high = 1e-4, 1e4
    if not slope(low) < 0 < slope(high):
        raise TrainingError(
            "no temperature is best: the validation examples are all classified rightly, or no "
            "better than by chance",
            advice="give more examples, that training has not seen",
        )
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1.0 / low


def _entropy(probabilities: Tensor, axis: int) -> Tensor:
    total: Tensor = torch.special.entr(probabilities).sum(axis)
    return total
