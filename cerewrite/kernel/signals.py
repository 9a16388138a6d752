"""Backward energies of one unit, the readers' signals integrated out (docs/theory.md, section 17).

Every layer that reads a unit (a reader, j) sends back a gradient: a Gaussian signal r_j of
variance R_j, independent of the other readers' signals. The unit's backward energy is a quadratic
form in these signals; its mean and variance over them are eq. 51, at every point of the Gaussian
terms that the unit is a function of.
"""

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
"""Slopes (readers x terms x points) that are held in memory at once."""


def backward(
    reads: Sequence[Read],
    owned: Sequence[GaussianTerm],
    tangents: Sequence[dict[GaussianTerm, Tangent]],
    space: Space,
    shares: Array,
) -> tuple[list[Array], Array, dict[GaussianTerm, float]]:
    """Mean and variance of the backward energies over the signals (docs/theory.md, eq. 51).

    With ``H_jj' = sum_k T_k d_jk d_j'k`` (eq. 50) the energy is ``sum_jj' r_j r_j' H_jj'``. Its
    diagonal belongs to each reader's own signal; the products of reader j's signal with those of
    later readers belong to the kernels of all terms from reader j on.

    Args:
        reads: the readers j, in execution order.
        owned: the Gaussian terms k that layers draw, with tangent kernels T_k.
        tangents: per reader, the slopes ``d_jk = dy_j/dg_k``.
        space: the points of the Gaussian terms.
        shares: d log K / d noise, per slot.

    Returns:
        Per reader, ``H_jj`` at every point relative to its average; relative variances that the
        signals add, first of the readers' own signals, then of the products with later ones;
        per term, the share of log K at or below it.
    """
    kernels = np.array([max(nominal_value(term.rate), 0.0) for term in owned])
    # R_j = d log K / d T_j (eq. 46): the share of log K by the relative kernel, over that kernel
    signals = np.array([shares[read.signal] / (read.kernel or 1.0) for read in reads])
    # H_jj at every point and the averages of H over points; constant slopes need no points
    slopes = _Slopes(tangents, owned)
    moments = _Moments(slopes, kernels)
    means = np.repeat(moments.energies.sum(1)[:, None], len(space.weights), 1)
    step = max(_ELEMENTS // max(slopes.varying, 1), 1)
    for start in range(0, len(space.weights) if slopes.varying else 0, step):
        part = slice(start, start + step)
        moments.add(slopes, part, space.weights[part], means)
    # E[T_k b_k^2] per term: sum_j R_j E[T_k d_jk^2], its share of log K
    energies = moments.energies * signals[:, None]
    downs = dict(zip(owned, energies.sum(0).tolist(), strict=True))
    # R_j R_j' E[H_jj'^2], the terms of the variance in eq. 51
    squares = moments.squares * np.outer(signals, signals)
    own_signal = energies.sum(1)
    crossed = np.array([shares[read.cross] for read in reads])
    # what batch norms' deviations add (section 23, below eq. 69): they differ from unit to unit
    effective_batch_size = [
        [read.unit.effective_batch_size.get(term, math.inf) for term in owned] for read in reads
    ]
    normed = (moments.fourths * scatter(np.array(effective_batch_size))).sum(1)
    # eq. 51, j = j': 2 R_j^2 H_jj^2, relative to the squared share of the signal's own slot
    variance = 2 * np.diag(squares) + 3 * signals**2 * normed
    diagonal = variance / np.where(own_signal != 0, own_signal, 1.0) ** 2
    # eq. 51, j < j': 4 R_j R_j' H_jj'^2, relative to the squared share of reader j's cross slot
    later = 4 * np.triu(squares, 1).sum(1) / np.where(crossed != 0, crossed, 1.0) ** 2
    return [unit_mean(row, space) for row in means], np.concatenate([diagonal, later]), downs


def unit_mean(row: Array, space: Space) -> Array:
    """Values at the points, divided by their average; unchanged where that is 0."""
    mean = float(space.weights @ row)
    return row / mean if mean else row


class _Slopes:
    """Slopes ``d_jk`` of all readers by all terms: numbers, or arrays over the points.

    Attributes:
        constant: slopes of readers all of whose slopes are numbers, ``[readers, terms]``; 0 for
            the other readers.
        variable: the other readers, each with the indices of the terms that it has slopes by.
        varying: how many slopes those readers have altogether.
    """

    def __init__(
        self, tangents: Sequence[dict[GaussianTerm, Tangent]], owned: Sequence[GaussianTerm]
    ) -> None:
        self._tangents, self._owned = tangents, owned
        self.constant = np.zeros((len(tangents), len(owned)))
        self.variable: dict[int, list[int]] = {}
        for j, slopes in enumerate(tangents):
            by_index = {k: slopes[term] for k, term in enumerate(owned) if term in slopes}
            if any(isinstance(slope, np.ndarray) for slope in by_index.values()):
                self.variable[j] = list(by_index)
            else:
                self.constant[j, list(by_index)] = list(by_index.values())
        self.varying = sum(map(len, self.variable.values()))

    def at(self, j: int, part: slice, points: int) -> Array:
        """The slopes of one variable reader at some points, ``[its terms, points]``."""
        rows = np.empty((len(self.variable[j]), points))
        for row, k in enumerate(self.variable[j]):
            slope = self._tangents[j][self._owned[k]]
            rows[row] = slope[part] if isinstance(slope, np.ndarray) else slope
        return rows


class _Moments:
    """Averages of products of slopes over the points, accumulated piece by piece.

    Attributes:
        energies: ``E[T_k d_jk^2]``, ``[readers, terms]``.
        fourths: ``E[(T_k d_jk^2)^2]``, likewise.
        squares: ``E[H_jj'^2]`` of eq. 50 for j <= j', ``[readers, readers]``.
    """

    def __init__(self, slopes: _Slopes, kernels: Array) -> None:
        # readers with constant slopes: the averages are the values themselves
        self._kernels = kernels
        self.energies = slopes.constant**2 * kernels
        self.fourths = self.energies**2
        self.squares = np.triu(((slopes.constant * kernels) @ slopes.constant.T) ** 2)

    def add(self, slopes: _Slopes, part: slice, weights: Array, means: Array) -> None:
        """Add some points of the variable readers, and write their H_jj to ``means``."""
        by_reader = {j: slopes.at(j, part, len(weights)) for j in slopes.variable}
        for j, terms in slopes.variable.items():
            # T_k d_jk, then T_k d_jk^2 with its first and second moment
            weighted = by_reader[j] * self._kernels[terms, None]
            squared = weighted * by_reader[j]
            self.energies[j, terms] += squared @ weights
            self.fourths[j, terms] += squared**2 @ weights
            means[j, part] = squared.sum(0)
            # E[H_jj'^2] with every reader j' of constant slopes, written above the diagonal
            with_constant = (slopes.constant[:, terms] @ weighted) ** 2 @ weights
            self.squares[:j, j] += with_constant[:j]
            self.squares[j, j:] += with_constant[j:]
            # E[H_jj'^2] with j itself and with later readers of variable slopes
            rows = {term: row for row, term in enumerate(terms)}
            for other, others in slopes.variable.items():
                if other < j:
                    continue
                pairs = [(rows[term], row) for row, term in enumerate(others) if term in rows]
                if pairs:
                    mine, theirs = (list(side) for side in zip(*pairs, strict=True))
                    product = np.einsum("kp,kp->p", weighted[mine], by_reader[other][theirs])
                    self.squares[j, other] += product**2 @ weights
