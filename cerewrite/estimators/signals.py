"""The signals that readers send back to one unit, integrated out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cerewrite.oprules.batch import scatter
from cerewrite.oprules.growth import now
from cerewrite.oprules.integrals import Space
from cerewrite.oprules.moments import Read
from cerewrite.oprules.units import Array, Leaf, Tangent

_ELEMENTS = 1 << 23
"""Slopes by all leaves of all readers that are held at once."""


def backward(
    reads: Sequence[Read],
    owned: Sequence[Leaf],
    tangents: Sequence[dict[Leaf, Tangent]],
    space: Space,
    shares: Array,
) -> tuple[list[Array], Array, dict[Leaf, float]]:
    """Backward energies per reader: relative means given the leaves, variances by the signals.

    With ``H_jj' = sum_k T_k d_jk d_j'k`` the energy is ``sum_jj' r_j r_j' H_jj'``. Its diagonal
    belongs to the readers' own signals; the products of reader j's signal with those of later
    ones to the kernels of all leaves from reader j on.

    Args:
        reads: the readers.
        owned: the leaves that layers draw.
        tangents: per reader, the slopes by the leaves.
        space: the points.
        shares: d log K / d noise, per slot.

    Returns:
        Means per reader, at every point; variances of the readers' own signals and of their
        products; share of log K at or below each leaf.
    """
    kernels = np.array([max(now(leaf.rate), 0.0) for leaf in owned])
    signals = np.array([shares[read.signal] / (read.kernel or 1.0) for read in reads])
    moments = _Moments(len(reads), len(owned))
    means = np.empty((len(reads), len(space.weights)))
    step = max(_ELEMENTS // max(len(reads) * len(owned), 1), 1)
    for start in range(0, len(space.weights), step):
        part = slice(start, start + step)
        by = _slopes(tangents, owned, space.weights, part)
        means[:, part] = moments.add(by, kernels, space.weights[part])
    energies = moments.energies * signals[:, None]
    downs = dict(zip(owned, energies.sum(0).tolist(), strict=True))
    squares = moments.squares * np.outer(signals, signals)
    own = energies.sum(1)
    crossed = np.array([shares[read.cross] for read in reads])
    # what batch norms' deviations, one per unit and leaf, scatter of each reader's energy
    places = [[read.unit.places.get(leaf, math.inf) for leaf in owned] for read in reads]
    normed = (moments.fourths * scatter(np.array(places))).sum(1)
    spread = 2 * np.diag(squares) + 3 * signals**2 * normed
    diagonal = spread / np.where(own != 0, own, 1.0) ** 2
    later = 4 * np.triu(squares, 1).sum(1) / np.where(crossed != 0, crossed, 1.0) ** 2
    return [unit_mean(row, space) for row in means], np.concatenate([diagonal, later]), downs


def unit_mean(row: Array, space: Space) -> Array:
    """A row of values over its mean; as it is where that is 0."""
    mean = float(space.weights @ row)
    return row / mean if mean else row


class _Moments:
    """Moments of slopes over the points, added up piece by piece.

    Attributes:
        energies: ``E[T_k d_jk^2]``, ``[readers, leaves]``.
        fourths: ``E[(T_k d_jk^2)^2]``, likewise.
        squares: ``E[H_jj'^2]`` for a reader and later ones, ``[readers, readers]``.
    """

    def __init__(self, readers: int, leaves: int) -> None:
        self.energies = np.zeros((readers, leaves))
        self.fourths = np.zeros((readers, leaves))
        self.squares = np.zeros((readers, readers))

    def add(self, by: Array, kernels: Array, weights: Array) -> Array:
        """Add some points; returns H_jj at them, ``[readers, points]``."""
        weighed = by * kernels[:, None]
        squared = weighed * by
        self.energies += squared @ weights
        self.fourths += squared**2 @ weights
        for j, own in enumerate(weighed):
            self.squares[j, j:] += np.einsum("kp,jkp->jp", own, by[j:]) ** 2 @ weights
        found: Array = squared.sum(1)
        return found


def _slopes(
    tangents: Sequence[dict[Leaf, Tangent]], owned: Sequence[Leaf], weights: Array, part: slice
) -> Array:
    """Slopes of all readers by all leaves at some points, ``[readers, leaves, points]``."""
    by = np.zeros((len(tangents), len(owned), len(weights[part])))
    for j, slopes in enumerate(tangents):
        for k, leaf in enumerate(owned):
            slope = slopes.get(leaf, 0.0)
            by[j, k] = slope[part] if isinstance(slope, np.ndarray) else slope
    return by
