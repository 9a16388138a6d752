"""A class's kappa from its influences in several draws (docs/theory.md, section 30)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cerewrite.estimators.draws.influence import Influence

NOISE_ERROR = 0.05
"""Relative error of the subtracted noise."""

LEAST_LEFT = 0.1
"""Least part of a member's influence that its units' own scatter leaves."""

MOST_LOST = 3.6
"""Units that squares behind a ReLU lose to their own sum."""

Array = NDArray[np.float64]


def blend(draws: list[Influence]) -> tuple[float, float]:
    """A class's kappa and its standard error, over draws.

    From the subtraction over the fit to the plain energies, bias grows and error shrinks. Each
    counts with weight ``next^2 / (next^2 + error^2)`` beside the next: the bias of that is of
    about its own size. The subtracted noise is known to some per cent only (higher orders in
    1 / width), which is part of the subtraction's error. Where it leaves nothing, the fit stands.

    Example:
        >>> sure = dict(noise=0.0, fitted=1.0, slack=0.0, plain=0.9, up=0.5, down=0.5)
        >>> draws = [Influence(cleared=0.9, **sure), Influence(cleared=1.1, **sure)]
        >>> round(blend(draws)[0], 6)
        1.0
    """
    cleared, noise, fitted, slack, plain = (
        np.array([getattr(draw, name) for draw in draws])
        for name in ("cleared", "noise", "fitted", "slack", "plain")
    )
    smooth = _mixed(fitted, plain, float(slack.mean()))
    sampled = float(cleared.std(ddof=1)) / math.sqrt(len(draws))
    mixed = _mixed(cleared, smooth, math.hypot(sampled, NOISE_ERROR * float(noise.mean())))
    if not mixed.mean() > 0:
        mixed = smooth
    return float(mixed.mean()), float(mixed.std(ddof=1)) / math.sqrt(len(draws))


def settled(draws: list[Influence], groups: int) -> tuple[float, float]:
    """A class's kappa at leading order and its error, its units in so many existing members.

    Units of member j move log K in proportion to its share w_j, so that their squares are
    ``m sum_j w_j^2`` times what they would be in members that are alike. Over all members and
    draws the ratio of the two is, with S the class's whole influence,
    ``R = k / (1 + k / S^2)`` for a member's own k: its part in K scatters with its units.

    Args:
        draws: the class in every draw.
        groups: members.

    Example:
        >>> one = dict(noise=0.0, slack=0.0, up=0.5, down=0.5)
        >>> at = Influence(cleared=0.5, fitted=0.5, plain=0.5, spread=2.0, **one)
        >>> settled([at, at], groups=2)
        (0.5, 0.0)
    """
    kappa, stderr = blend(draws)
    sharp = float(np.mean([draw.sharp for draw in draws])) if groups == 1 else 0.0
    factor = small_sample(draws[0].units, kappa, sharp)
    kappa, stderr = factor * kappa, factor * stderr
    if groups == 1:
        return kappa, stderr
    spread = float(np.mean([draw.spread for draw in draws]))
    whole = float(np.mean([draw.whole for draw in draws])) ** 2
    ratio = kappa / spread * groups / whole if whole > 0 else 0.0
    member = spread * max(1.0 - ratio, LEAST_LEFT)
    return kappa / member, stderr / member


def small_sample(units: int, squares: float, sharp: float) -> float:
    """What few units take away from their own sum of squares, as a factor of at most 2.

    For shares ``e_i / sum e`` of n energies of a gamma law of relative variance v (squares of
    Gaussians, or averages of many) the mean of ``n / (n - 1)`` times the sum of squared
    deviations is ``r = v / (n + v)`` exactly, so that ``v / n = r / (1 - r)``. Squares behind a
    ReLU, of a heavier tail, lose ``n / (n - 3.6)`` to first order, which is the limit. Forward
    and backward energies, each with a sum of its own, count by their squares.

    Args:
        units: n; 0 gives 1.
        squares: the sum of squares.
        sharp: factor on them where the units' influences do not add up to 1, see `Influence`.

    Example:
        >>> [round(small_sample(n, s, 1.0), 3) for n, s in ((12, 11 / 84), (12, 0.0), (4, 1.0))]
        [1.273, 1.091, 2.0]
    """
    if units < 2:
        return 1.0 if units == 0 else 2.0
    first = units / (units - 1.0)
    left = 1.0 - first * max(squares, 0.0) * sharp
    most = units / max(units - MOST_LOST, units / 2.0)
    return min(first / left, most) if left > 0 else most


def _mixed(sharp: Array, safe: Array, error: float) -> Array:
    size = float(safe.mean()) ** 2
    weight = size / (size + error**2) if size > 0 else 1.0
    mixed: Array = weight * sharp + (1 - weight) * safe
    return mixed
