r"""Var[log K] from draws that are rotated into each other (docs/theory.md, section 30).

With ``W_t = W cos t + W' sin t`` of two independent Gaussian draws, all of which have the law of
W, the covariance ``C(t)`` of log K at ``W`` and ``W_t`` falls from the variance at 0 to nothing at
a right angle, at the rate ``sin t E[sigma grad log K(W) . sigma grad log K(W_t)]``. The inner
products average over all weights, so that few draws do, and nothing is assumed of units. What C
loses over a first angle is half the mean square of the difference, which needs no derivative, sees
the jumps of kinks and bears slopes that are large where K is nearly nothing; beyond it kinks are
rounded (`cerewrite.estimators.draws.kinks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from cerewrite.estimators.draws.influence import kernel_of
from cerewrite.estimators.draws.kinks import Rounded
from cerewrite.estimators.draws.statistics import Ratio
from cerewrite.estimators.draws.subject import Subject
from cerewrite.runtime.seeds import generator_for

STEPS = 6
"""Steps to a right angle."""
STEP = math.pi / (2 * STEPS)
"""Radians."""
SIMPSON = np.array([1.0, 4.0, 2.0, 4.0, 1.0])
"""Weights of Simpson's rule from the second step on, times a third of a step."""
RULER = (0, 1, 4, 6)
"""Steps at which slopes are taken: every difference from 1 to 6 occurs once (a Golomb ruler)."""
FEWEST = 12
"""Turns before a standard error of theirs is believed."""
TINY = 1e-30
ENOUGH = 0.07
"""Relative standard error beyond which no more turns are made."""


def rotated_variance(
    subject: Subject, wanted: int, progress: Callable[[int], None] | None = None
) -> Ratio | None:
    """Var[log K] and its standard error, from at most so many turns.

    Args:
        subject: what is measured; its weights change.
        wanted: turns; fewer are made where they are enough.
        progress: called with the number of turns so far.

    Returns:
        None where weights are not Gaussian, or fewer than two turns meet no dead draw.

    Raises:
        AnalysisError: if K is not finite.
    """
    if subject.custom is not None or subject.fresh:
        return None
    found: list[tuple[float, float]] = []
    level = Ratio(0.0, math.inf)
    for index in range(wanted):
        one = turn(subject, index)
        if one is not None:
            found.append(one)
        if progress is not None:
            progress(index + 1)
        if len(found) > 1:
            level = settled_turns(found)
        if len(found) >= FEWEST and level.stderr <= ENOUGH * level.value:
            break
    return level if len(found) > 1 else None


def settled_turns(found: Sequence[tuple[float, float]]) -> Ratio:
    """The mean of turns, their two forms weighted by their inverse variances.

    The error is that of the mean times the deviation of Student's t of as many.

    Example:
        >>> settled_turns([(1.0, 0.0), (1.1, 2.0)]).value < 1.06
        True
    """
    forms = np.array(found)
    weights = 1 / np.maximum(forms.var(0, ddof=1), TINY)
    each = forms @ (weights / weights.sum())
    freedom = max(len(each) - 1, 3)
    student = math.sqrt(freedom / (freedom - 2))  # deviation of Student's t: few turns scatter less
    return Ratio(float(each.mean()), student * float(each.std(ddof=1)) / math.sqrt(len(each)))


def turn(subject: Subject, index: int) -> tuple[float, float] | None:
    """Var[log K] from one turn by a right angle, in two forms; None if a draw on the way is dead.

    Returns:
        With squares of differences over one step, and over two, as long as slopes beyond.

    Raises:
        AnalysisError: if K is not finite.
    """
    ends = _ends(subject, index)
    logs: list[float] = []
    slopes: dict[int, list[Tensor]] = {}
    for step in range(STEPS + 1):
        angle = step * STEP
        with torch.no_grad():
            for weight, first, last, _ in ends:
                weight.copy_(first * math.cos(angle) + last * math.sin(angle))
        kernel = subject.current(index)
        if kernel == 0:
            return None
        logs.append(math.log(kernel))
        if step in RULER:
            slopes[step] = _slopes(subject, [(weight, scale) for weight, *_, scale in ends])
    rates = np.zeros(STEPS + 1)
    for low, high in combinations(RULER, 2):
        products = zip(slopes[low], slopes[high], strict=True)
        inner = sum(float((a.double() * b.double()).sum()) for a, b in products)
        rates[high - low] = math.sin((high - low) * STEP) * inner
    rest = STEP / 3 * float(SIMPSON @ rates[2:])
    second = STEP * float(rates[1] + rates[2]) / 2
    return _lost(logs, 1) + second + rest, _lost(logs, 2) + rest


def _lost(logs: Sequence[float], steps: int) -> float:
    """Half the mean square of the differences over some steps."""
    values = np.array(logs)
    return float(np.square(values[steps:] - values[:-steps]).mean()) / 2


def _ends(subject: Subject, index: int) -> list[tuple[Tensor, Tensor, Tensor, float]]:
    """Every drawn tensor, once, with two draws of it and its deviation."""
    drawn = {id(subject.model.get_parameter(d.parameter)): d for d in subject.draws}
    weights = [(subject.model.get_parameter(d.parameter), d) for d in drawn.values()]
    filled = []
    for end in ("first", "last"):
        generator = generator_for(subject.seed, f"turn {index}, {end}")
        with torch.no_grad():
            for _, draw in weights:
                draw.fill(subject.model, generator)
        filled.append([weight.detach().clone() for weight, _ in weights])
    return [
        (weight, first, last, draw.deviation)
        for (weight, draw), first, last in zip(weights, *filled, strict=True)
    ]


def _slopes(subject: Subject, weights: list[tuple[Tensor, float]]) -> list[Tensor]:
    """``sigma dlog K / dW`` of every drawn tensor, kinks rounded."""
    once = parametrize.cached()  # computed weights are the same tensor wherever they are read
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), once, Rounded():
        kernel = kernel_of(subject, subject.gradients(create_graph=True))
    found = torch.autograd.grad(kernel.log(), [w for w, _ in weights], allow_unused=True)
    return [
        torch.zeros_like(weight) if slope is None else scale * slope
        for slope, (weight, scale) in zip(found, weights, strict=True)
    ]
