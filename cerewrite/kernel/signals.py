"""The signals that readers send back to one unit, integrated out: docs/theory.md, section 17."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cerewrite.kernel.batch import scatter
from cerewrite.kernel.evaluation import Space
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.reading import Read
from cerewrite.kernel.units import Array, GaussianTerm, Tangent

_ELEMENTS = 1 << 23
"""Slopes by all leaves of all readers that are held at once."""


def backward(
    reads: Sequence[Read],
    owned: Sequence[GaussianTerm],
    tangents: Sequence[dict[GaussianTerm, Tangent]],
    space: Space,
    shares: Array,
) -> tuple[list[Array], Array, dict[GaussianTerm, float]]:
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
    kernels = np.array([max(nominal_value(leaf.rate), 0.0) for leaf in owned])
    signals = np.array([shares[read.signal] / (read.kernel or 1.0) for read in reads])
    slopes = _Slopes(tangents, owned)
    moments = _Moments(slopes, kernels)
    means = np.repeat(moments.energies.sum(1)[:, None], len(space.weights), 1)
    step = max(_ELEMENTS // max(slopes.varying, 1), 1)
    for start in range(0, len(space.weights) if slopes.varying else 0, step):
        part = slice(start, start + step)
        moments.add(slopes, part, space.weights[part], means)
    energies = moments.energies * signals[:, None]
    downs = dict(zip(owned, energies.sum(0).tolist(), strict=True))
    squares = moments.squares * np.outer(signals, signals)
    own = energies.sum(1)
    crossed = np.array([shares[read.cross] for read in reads])
    # what batch norms' deviations, one per unit and leaf, scatter of each reader's energy
    effective_batch_size = [
        [read.unit.effective_batch_size.get(leaf, math.inf) for leaf in owned] for read in reads
    ]
    normed = (moments.fourths * scatter(np.array(effective_batch_size))).sum(1)
    spread = 2 * np.diag(squares) + 3 * signals**2 * normed
    diagonal = spread / np.where(own != 0, own, 1.0) ** 2
    later = 4 * np.triu(squares, 1).sum(1) / np.where(crossed != 0, crossed, 1.0) ** 2
    return [unit_mean(row, space) for row in means], np.concatenate([diagonal, later]), downs


def unit_mean(row: Array, space: Space) -> Array:
    """A row of values over its mean; as it is where that is 0."""
    mean = float(space.weights @ row)
    return row / mean if mean else row


class _Slopes:
    """Slopes of all readers by all leaves: numbers, or arrays over the points.

    Attributes:
        flat: the slopes of readers all of whose slopes are numbers, ``[readers, leaves]``; 0 for
            others.
        bent: the other readers, each with the leaves that it has slopes by.
        varying: how many slopes those have.
    """

    def __init__(
        self, tangents: Sequence[dict[GaussianTerm, Tangent]], owned: Sequence[GaussianTerm]
    ) -> None:
        self._tangents, self._owned = tangents, owned
        self.flat = np.zeros((len(tangents), len(owned)))
        self.bent: dict[int, list[int]] = {}
        for j, slopes in enumerate(tangents):
            found = {k: slopes[leaf] for k, leaf in enumerate(owned) if leaf in slopes}
            if any(isinstance(slope, np.ndarray) for slope in found.values()):
                self.bent[j] = list(found)
            else:
                self.flat[j, list(found)] = list(found.values())
        self.varying = sum(map(len, self.bent.values()))

    def at(self, j: int, part: slice, points: int) -> Array:
        """Those of one reader at some points, ``[its leaves, points]``."""
        found = np.empty((len(self.bent[j]), points))
        for row, k in enumerate(self.bent[j]):
            slope = self._tangents[j][self._owned[k]]
            found[row] = slope[part] if isinstance(slope, np.ndarray) else slope
        return found


class _Moments:
    """Moments of slopes over the points, added up piece by piece.

    Attributes:
        energies: ``E[T_k d_jk^2]``, ``[readers, leaves]``.
        fourths: ``E[(T_k d_jk^2)^2]``, likewise.
        squares: ``E[H_jj'^2]`` for a reader and later ones, ``[readers, readers]``.
    """

    def __init__(self, slopes: _Slopes, kernels: Array) -> None:
        self._kernels = kernels
        self.energies = slopes.flat**2 * kernels
        self.fourths = self.energies**2
        self.squares = np.triu(((slopes.flat * kernels) @ slopes.flat.T) ** 2)

    def add(self, slopes: _Slopes, part: slice, weights: Array, means: Array) -> None:
        """Add some points of readers whose slopes vary, and note their H_jj in ``means``."""
        by = {j: slopes.at(j, part, len(weights)) for j in slopes.bent}
        for j, leaves in slopes.bent.items():
            weighed = by[j] * self._kernels[leaves, None]
            squared = weighed * by[j]
            self.energies[j, leaves] += squared @ weights
            self.fourths[j, leaves] += squared**2 @ weights
            means[j, part] = squared.sum(0)
            beside = (slopes.flat[:, leaves] @ weighed) ** 2 @ weights
            self.squares[:j, j] += beside[:j]
            self.squares[j, j:] += beside[j:]
            rows = {leaf: row for row, leaf in enumerate(leaves)}
            for other, others in slopes.bent.items():
                if other < j:
                    continue
                met = [(rows[leaf], row) for row, leaf in enumerate(others) if leaf in rows]
                if met:
                    own, theirs = (list(side) for side in zip(*met, strict=True))
                    both = np.einsum("kp,kp->p", weighed[own], by[other][theirs])
                    self.squares[j, other] += both**2 @ weights
