r"""What the units of one width class do to log K, to leading order in 1 / width.

The closed form's K depends on a unit only through averages over its class: the forward energies
``y_j^2`` of what layer j reads, the energies and means that norms divide out, and the backward
energies ``b_k^2`` of what layer k writes, with the gradient ``b_k = sum_j r_j dy_j/dg_k`` of the
Gaussian signals r_j that the readers send back. Their shares f of log K are known from one
derivative, so one unit moves log K by ``psi / n`` with::

    psi(g, r) = sum_j f_j y_j^2 / E y_j^2  +  norms  +  sum_k T_k b_k^2
    kappa     = Var[psi] / n

over the Gaussians g that layers write into the unit and the signals r, of variance
``R_j = d log K / d T_j``. The signals are integrated out exactly: given g, psi has the mean
``sum_jk T_k R_j d_jk^2`` and the variance ``2 sum_kk' T_k T_k' (sum_j R_j d_jk d_jk')^2``, with
``d_jk = dy_j/dg_k``. For one writer and one reader this is docs/theory.md, eq. 18. For a gate,
value v times phi(g), it is that of products: forward energy ``v^2 phi^2`` (v_aa = 17 for ReLU),
backward energies ``r^2 phi^2`` and ``r^2 phi'^2 v^2``, which share r. For a residual stream it
holds every pair of writers and readers: docs/theory.md, sections 16 and 18.
"""

from __future__ import annotations

import math
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
from cerewrite.kernel.units import Array, GaussianTerm, Norm, Unit, without_shared_part

Ids = NDArray[np.int64]

_ORDERS = 8


@dataclass(frozen=True, slots=True)
class Influence:
    """What one layer's units do to log K.

    Attributes:
        kappa: relative variance at one unit (kappa times the width).
        f_up, f_dn: d log K / d log(forward or backward second moment).
        v_aa, v_bb, v_ab: relative (co)variances of one unit's energies.
        units: units that the layer writes.
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
    """All averages over units, and how they scatter.

    Attributes:
        shares: d log K / d noise, per slot.
        scatter: covariances of the noises, as slots and ``[slots, slots]``; one for each class, as
            the noises of different classes are independent.
        layers: influences by layer; several for a layer whose units are of several kinds.
    """

    shares: Array
    scatter: list[tuple[Ids, Array]]
    layers: dict[str, list[Influence]]


@dataclass(slots=True)
class _Class:
    """Leaves that meet in a unit, and all that is read of them."""

    terms: tuple[GaussianTerm, ...]
    reads: list[Read]
    norms: list[tuple[Unit, Norm, int, int]]

    @property
    def units(self) -> float:
        """How many units there are."""
        return max(term.units for term in self.terms)

    @property
    def owned(self) -> list[GaussianTerm]:
        """The terms that layers draw."""
        return [term for term in self.terms if term.layer]


@dataclass(frozen=True, slots=True)
class _Features:
    """Relative energies of a unit at every point, the signals integrated out.

    Attributes:
        slots: the slot of each row.
        rows: mean 1 each (0 for shifts of a mean and for products of signals), ``[rows, points]``.
        extra: the variance of each row that the signals add.
        forward, norms, backward: rows of each kind.
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
    """The scatter of every average over units, and what it does to log K.

    Args:
        kernel: K with its graph.
        context: what was read on the way to it.
    """
    shares = np.zeros(len(context.slots))
    if context.slots and kernel.requires_grad:
        slopes = torch.autograd.grad(kernel.log().sum(), context.slots, allow_unused=True)
        shares = np.array([0.0 if slope is None else float(slope) for slope in slopes])
    noise = Noise(shares, [], {})
    for members in _classes(context.reads, context.norms):
        _add_class(members, context.sampler, noise)
    return noise


def _classes(reads: Sequence[Read], norms: Sequence[Norm]) -> list[_Class]:
    """Leaves that are read together, in order of first use."""
    normed = [
        (unit, norm, slot, slot + len(norm.read) if norm.centred else -1)
        for norm in norms
        for unit, _, slot in norm.read
    ]
    home: dict[GaussianTerm, list[GaussianTerm]] = {}
    for unit in (*(read.unit for read in reads), *(unit for unit, *_ in normed)):
        joined: dict[GaussianTerm, None] = {}
        for term in unit.terms:
            joined |= dict.fromkeys(home.get(term, [term]))
        group = list(joined)
        home |= dict.fromkeys(group, group)
    found = {id(group): _Class(tuple(group), [], []) for group in home.values()}
    for read in reads:
        found[id(home[read.unit.terms[0]])].reads.append(read)
    for entry in normed:
        found[id(home[entry[0].terms[0]])].norms.append(entry)
    return [members for members in found.values() if members.owned]


def _add_class(members: _Class, sampler: Sampler, noise: Noise) -> None:
    """The scatter that one class adds, and its layers' influences."""
    space = sampler.space(members.terms)
    found = _features(members, sampler, space, noise.shares)
    rows = found.rows - (found.rows @ space.weights)[:, None]
    scatter = (rows * space.weights) @ rows.T + np.diag(found.extra)
    for term in space.noise:
        if not term.layer:
            main = _main(rows, term, space)
            scatter -= main @ main.T
    noise.scatter.append((found.slots, scatter / members.units))
    shares = noise.shares[found.slots]
    total = max(float(shares @ scatter @ shares), 0.0)
    terms = [term for term in members.owned if term in space.noise]
    if len(terms) == 1:
        at = _one(members, found, rows, shares, total, space)
        noise.layers.setdefault(terms[0].layer, []).append(at)
        return
    psi, signals = (shares @ rows)[None, :], float(shares**2 @ found.extra)
    down = math.fsum(found.downs.values())
    weights = [
        float((_main(psi, term, space) ** 2).sum()) + signals * _over(found.downs[term], down)
        for term in terms
    ]
    for term, weight in zip(terms, weights, strict=True):
        kappa = total * _over(weight, sum(weights))
        up = math.fsum(_rate(read, term, noise.shares, sampler) for read in members.reads)
        size = up * up + found.downs[term] ** 2
        spread = _over(kappa, size)
        at = Influence(kappa, up, found.downs[term], spread, spread, 0.0, members.units)
        noise.layers.setdefault(term.layer, []).append(at)


def _rate(read: Read, term: GaussianTerm, shares: Array, sampler: Sampler) -> float:
    """What a term's variance does to log K through one reader's forward energy."""
    if term not in read.unit.terms:
        return 0.0
    sense = sampler.sense(read.unit)
    rate = sense.by_square[read.unit.terms.index(term)] / (sense.square or 1.0)
    return float(shares[read.forward] * rate)


def _features(members: _Class, sampler: Sampler, space: Space, shares: Array) -> _Features:
    """Relative energies at every point."""
    slots: list[int] = []
    rows: list[Array] = []
    tangents: list[dict[GaussianTerm, Array | float]] = []
    for read in members.reads:
        value, slopes = sampler.values(read.unit, space)
        tangents.append(slopes)
        square = value**2
        if read.common >= 0:
            varying, _ = sampler.values(without_shared_part(read.unit), space)
            own = (varying - space.weights @ varying) ** 2
            slots.append(read.common)
            rows.append(unit_mean(square - own, space))
            square = own
        slots.append(read.forward)
        rows.append(unit_mean(square, space))
    normed = len(rows)
    for unit, norm, energy, shift in members.norms:
        value = (sampler.values(unit, space)[0] - norm.mean) / norm.deviation
        slots += [energy] if shift < 0 else [energy, shift]
        rows += [unit_mean(value**2, space), value][: 1 if shift < 0 else 2]
    back = len(rows)
    means, extra, downs = backward(members.reads, members.owned, tangents, space, shares)
    slots += [read.signal for read in members.reads] + [read.cross for read in members.reads]
    rows += [*means, *[np.zeros(len(space.weights))] * len(means)]
    return _Features(
        np.array(slots),
        np.array(rows),
        np.concatenate([np.zeros(back), extra]),
        list(range(normed)),
        list(range(normed, back)),
        list(range(back, len(rows))),
        downs,
    )


def _main(rows: Array, term: GaussianTerm, space: Space) -> Array:
    """Hermite coefficients of functions by one term alone, ``[rows, orders]``."""
    z = space.noise[term]
    before, polynomial, found = np.ones_like(z), z, []
    for order in range(1, _ORDERS + 1):
        found.append(rows @ (space.weights * polynomial))
        raised = (z * polynomial - order**0.5 * before) / (order + 1) ** 0.5
        before, polynomial = polynomial, raised
    return np.stack(found, 1)


def _one(
    members: _Class, found: _Features, rows: Array, shares: Array, total: float, space: Space
) -> Influence:
    """A class of one writer: the (co)variances of its energies, less what norms hold still."""
    parts = np.stack([shares[at] @ rows[at] for at in (found.forward, found.backward)])
    root = np.sqrt(space.weights)
    if found.norms:
        design = (np.stack([np.ones_like(root), *rows[found.norms]]) * root).T
        target = (parts * root).T
        parts = (target - design @ np.linalg.lstsq(design, target, rcond=None)[0]).T / root
    (aa, ab), (_, bb) = (parts * space.weights) @ parts.T
    bb += float(shares**2 @ found.extra)
    up, down = float(shares[found.forward].sum()), math.fsum(found.downs.values())
    v = (_over(aa, up * up), _over(bb, down * down), _over(ab, up * down))
    return Influence(total, up, down, *v, members.units)


def _over(value: float, share: float) -> float:
    return float(value) / share if share else 0.0
