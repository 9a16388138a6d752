r"""What the units of one width class do to log K, to leading order in 1 / width.

The closed form's K depends on a unit only through averages over its width class: the forward
energies ``y_j^2`` of what reader (layer) j reads, the energies and means that norms divide out,
and the backward energies ``b_k^2`` of what writer (layer) k writes. The gradient that arrives at
the Gaussian term g_k of a writer is ``b_k = sum_j r_j d_jk`` with ``d_jk = dy_j/dg_k`` and the
signal r_j that reader j sends back, of variance ``R_j = d log K / d T_j`` (docs/theory.md, eq. 46).
The shares f of all averages in log K come from one derivative. One unit moves log K by ``psi / n``
(docs/theory.md, eqs. 47 and 48)::

    psi(g, r) = sum_j f_j y_j^2 / E y_j^2  +  norms  +  sum_k T_k b_k^2
    kappa     = Var[psi] / n

The signals r are integrated out exactly (`signals`); the average over the Gaussian terms g is a
weighted sum over points. For one writer and one reader this is docs/theory.md, eq. 18. Gates
(section 18) and residual streams (section 16), with every pair of writers and readers, need no
formula of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cerewrite.kernel.evaluation import Space
from cerewrite.kernel.integrals import Sampler
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.reading import Read
from cerewrite.kernel.signals import backward, unit_mean
from cerewrite.kernel.units import Array, GaussianTerm, Norm, Unit

Ids = NDArray[np.int64]

_ORDERS = 8
"""Hermite polynomials by which main effects are taken away (docs/theory.md, eq. 49)."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What one layer's units do to log K.

    Attributes:
        kappa: the correction at a width of one unit: kappa times the width.
        forward_share, backward_share: d log K by the logarithms of the forward and the backward
            second moment.
        v_aa, v_bb, v_ab: relative variances and covariance of one unit's forward and backward
            energy.
        units: how many units the layer writes.
    """

    kappa: float
    forward_share: float
    backward_share: float
    v_aa: float
    v_bb: float
    v_ab: float
    units: float


@dataclass(slots=True)
class Noise:
    """The noise of all averages over units: its covariance, and what it does to log K.

    Attributes:
        shares: d log K / d noise (f in docs/theory.md, section 16), per slot.
        scatter: per width class, its slots and their covariance ``[slots, slots]`` (C in section
            21); noises of different classes are independent.
        layers: influences by layer; several for a layer whose units are of several kinds.
    """

    shares: Array
    scatter: list[tuple[Ids, Array]]
    layers: dict[str, list[Influence]]


@dataclass(slots=True)
class _Class:
    """A width class: Gaussian terms that meet in one unit, and all that is read of that unit.

    Attributes:
        terms: the terms.
        reads: what layers read.
        norms: per norm, what it reads, the norm, and the slots of the noise of its energy and of
            its mean; -1 for the latter where it subtracts no mean.
    """

    terms: tuple[GaussianTerm, ...]
    reads: list[Read]
    norms: list[tuple[Unit, Norm, int, int]]

    @property
    def units(self) -> float:
        """How many units the class has."""
        return max(term.units for term in self.terms)

    @property
    def owned(self) -> list[GaussianTerm]:
        """The terms that are drawn by layers, the writers."""
        return [term for term in self.terms if term.layer]


@dataclass(frozen=True, slots=True)
class _Features:
    """Relative energies of one unit at every point, their mean over the signals.

    Attributes:
        slots: the slot of the noise of each row.
        rows: of average 1 each (0 for shifts of a mean and for products of signals),
            ``[rows, points]``.
        extra: the variance over the signals, per row.
        forward, norms, backward: the indices of the rows of each kind.
        downs: share of log K at or below each drawn term.
    """

    slots: Ids
    rows: Array
    extra: Array
    forward: list[int]
    norms: list[int]
    backward: list[int]
    downs: dict[GaussianTerm, float]


def influences(kernel: Tensor, context: MomentContext) -> Noise:
    """The covariance of every average over units, and what it does to log K.

    Args:
        kernel: K with its autograd graph.
        context: what was read on the way to it.
    """
    # f_j = d log K / d log q_j of eq. 47, for all averages at once
    shares = np.zeros(len(context.slots))
    if context.slots and kernel.requires_grad:
        slopes = torch.autograd.grad(kernel.log().sum(), context.slots, allow_unused=True)
        shares = np.array([0.0 if slope is None else float(slope) for slope in slopes])
    noise = Noise(shares, [], {})
    for members in _classes(context.reads, context.norms):
        _add_class(members, context.sampler, noise)
    return noise


def _classes(reads: Sequence[Read], norms: Sequence[Norm]) -> list[_Class]:
    """Width classes in order of first use: terms that are read together are of one class."""
    # what norms read, with the slots of the noise of the energy and of the mean
    normed = [
        (unit, norm, slot, slot + len(norm.read) if norm.centred else -1)
        for norm in norms
        for unit, slot in norm.read
    ]
    # union of terms that occur in one unit; every term of a class maps to the same list
    class_of: dict[GaussianTerm, list[GaussianTerm]] = {}
    for unit in (*(read.unit for read in reads), *(unit for unit, *_ in normed)):
        known = [class_of.get(term, [term]) for term in unit.terms]
        groups = list({id(group): group for group in known}.values())
        if len(groups) > 1 or unit.terms[0] not in class_of:
            joined = [term for group in groups for term in group]
            class_of |= dict.fromkeys(joined, joined)
    classes = {id(group): _Class(tuple(group), [], []) for group in class_of.values()}
    for read in reads:
        classes[id(class_of[read.unit.terms[0]])].reads.append(read)
    for entry in normed:
        classes[id(class_of[entry[0].terms[0]])].norms.append(entry)
    return [members for members in classes.values() if members.owned]


def _add_class(members: _Class, sampler: Sampler, noise: Noise) -> None:
    """Add one class: the covariance of its averages, and its layers' influences."""
    space = sampler.space(members.terms)
    energies = _features(members, sampler, space, noise.shares)
    # covariance of the relative energies of one unit: over the Gaussian terms, plus that over the
    # signals, which differ from slot to slot
    rows = energies.rows - (energies.rows @ space.weights)[:, None]
    covariance = (rows * space.weights) @ rows.T + np.diag(energies.extra)
    # eq. 49: Gaussians that no layer draws do not fluctuate over initialisations
    for term in space.noise:
        if not term.layer:
            effects = _main_effects(rows, term, space)
            covariance -= effects @ effects.T
    noise.scatter.append((energies.slots, covariance / members.units))
    # eq. 48: n kappa = Var[psi] = f . C f
    shares = noise.shares[energies.slots]
    total = max(float(shares @ covariance @ shares), 0.0)
    writers = [term for term in members.owned if term in space.noise]
    if len(writers) == 1:
        influence = _of_one_writer(members, energies, rows, shares, total, space)
        noise.layers.setdefault(writers[0].layer, []).append(influence)
        return
    # several writers divide kappa by the main effects of their terms on psi and, of the variance
    # over the signals, by their shares of the backward energy (section 16)
    psi, signals = (shares @ rows)[None, :], float(shares**2 @ energies.extra)
    down = math.fsum(energies.downs.values())
    weights = [
        float((_main_effects(psi, term, space) ** 2).sum())
        + signals * _ratio(energies.downs[term], down)
        for term in writers
    ]
    ups = _forward_shares(members.reads, noise.shares, sampler)
    for term, weight in zip(writers, weights, strict=True):
        kappa = total * _ratio(weight, sum(weights))
        up = ups.get(term, 0.0)
        # v_aa = v_bb and v_ab = 0 such that v_aa f_up^2 + v_bb f_down^2 is the correction
        size = up * up + energies.downs[term] ** 2
        v = _ratio(kappa, size)
        influence = Influence(kappa, up, energies.downs[term], v, v, 0.0, members.units)
        noise.layers.setdefault(term.layer, []).append(influence)


def _forward_shares(
    reads: Sequence[Read], shares: Array, sampler: Sampler
) -> dict[GaussianTerm, float]:
    """What each term's variance does to log K through all readers' forward energies.

    The sum over readers j of ``f_j d log E[y_j^2] / d log sigma_k^2``.
    """
    found: defaultdict[GaussianTerm, list[float]] = defaultdict(list)
    for read in reads:
        sense = sampler.sense(read.unit)
        rates = shares[read.forward] * (sense.by_square / (sense.square or 1.0))
        for term, rate in zip(read.unit.terms, rates, strict=False):  # norms' rates follow
            found[term].append(float(rate))
    return {term: math.fsum(rates) for term, rates in found.items()}


def _features(members: _Class, sampler: Sampler, space: Space, shares: Array) -> _Features:
    """The rows of psi (docs/theory.md, eq. 47): relative energies of one unit at every point."""
    slots: list[int] = []
    rows: list[Array] = []
    tangents: list[dict[GaussianTerm, Array | float]] = []
    # forward: y_j^2 / E[y_j^2]; in front of batch norms apart for what examples have in common
    for read in members.reads:
        value, slopes = sampler.values(read.unit, space)
        tangents.append(slopes)
        square = value**2
        if read.common >= 0:
            varying, _ = sampler.values(sampler.varying(read.unit), space)
            own = (varying - space.weights @ varying) ** 2
            slots.append(read.common)
            rows.append(unit_mean(square - own, space))
            square = own
        slots.append(read.forward)
        rows.append(unit_mean(square, space))
    # norms: energy of what they divide by its deviation, and its mean where they subtract that
    first_norm = len(rows)
    for unit, norm, energy, shift in members.norms:
        value = (sampler.values(unit, space)[0] - norm.mean) / norm.deviation
        slots += [energy] if shift < 0 else [energy, shift]
        rows += [unit_mean(value**2, space), value][: 1 if shift < 0 else 2]
    # backward: mean over the signals given the terms (eq. 51); products of signals have mean 0
    first_backward = len(rows)
    means, extra, downs = backward(members.reads, members.owned, tangents, space, shares)
    slots += [read.signal for read in members.reads] + [read.cross for read in members.reads]
    rows += [*means, *[np.zeros(len(space.weights))] * len(means)]
    return _Features(
        np.array(slots),
        np.array(rows),
        np.concatenate([np.zeros(first_backward), extra]),
        list(range(first_norm)),
        list(range(first_norm, first_backward)),
        list(range(first_backward, len(rows))),
        downs,
    )


def _main_effects(rows: Array, term: GaussianTerm, space: Space) -> Array:
    """``E[row He_k(zeta)]`` for k = 1 to 8 and one term zeta of unit variance, ``[rows, orders]``.

    The Hermite coefficients of docs/theory.md, eq. 49: main effects of that term alone.
    """
    zeta = space.noise[term]
    previous, polynomial, coefficients = np.ones_like(zeta), zeta, []
    for order in range(1, _ORDERS + 1):
        coefficients.append(rows @ (space.weights * polynomial))
        # normalised: sqrt(k + 1) He_(k+1) = zeta He_k - sqrt(k) He_(k-1)
        following = (zeta * polynomial - order**0.5 * previous) / (order + 1) ** 0.5
        previous, polynomial = polynomial, following
    return np.stack(coefficients, 1)


def _of_one_writer(
    members: _Class, energies: _Features, rows: Array, shares: Array, total: float, space: Space
) -> Influence:
    """The influence of a class's only writer: v_aa, v_bb, v_ab from the rows of each kind."""
    # the forward and the backward part of psi
    kinds = (energies.forward, energies.backward)
    parts = np.stack([shares[kind] @ rows[kind] for kind in kinds])
    # what is linear in the energies and means that norms hold still is projected out (section 16):
    # least squares over the points, weighted
    root = np.sqrt(space.weights)
    if energies.norms:
        design = (np.stack([np.ones_like(root), *rows[energies.norms]]) * root).T
        target = (parts * root).T
        parts = (target - design @ np.linalg.lstsq(design, target, rcond=None)[0]).T / root
    # (co)variances over the terms, plus the variance over the signals, per squared share
    (aa, ab), (_, bb) = (parts * space.weights) @ parts.T
    bb += float(shares**2 @ energies.extra)
    up, down = float(shares[energies.forward].sum()), math.fsum(energies.downs.values())
    v = (_ratio(aa, up * up), _ratio(bb, down * down), _ratio(ab, up * down))
    return Influence(total, up, down, *v, members.units)


def _ratio(value: float, share: float) -> float:
    """A quotient; 0 where the divisor is."""
    return float(value) / share if share else 0.0
