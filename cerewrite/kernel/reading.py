"""What layers read, and the noise of finite width on it (docs/theory.md, sections 5 and 19)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cerewrite.kernel.batch import Batch, own_share
from cerewrite.kernel.growth import (
    change,
    changes,
    grown,
    mean_moved,
    nominal_value,
    overlap_of,
    stacked,
)
from cerewrite.kernel.integrals import Sampler
from cerewrite.kernel.units import GaussianTerm, Norm, Unit
from cerewrite.kernel.values import Moments, Part, Signal, scalar, signal_range_error

_SLIGHT = 1e-4
"""Share of a mean square below which what examples have in common is left out: the resolution of
units of many terms."""

Noise = Callable[[bool], Tensor]
"""Makes the next slot of noise: a factor on an energy, or (True) a shift of a mean."""


@dataclass(frozen=True, slots=True)
class Read:
    """One kind of units as one layer reads it.

    Attributes:
        unit: one of them.
        kernel: the kernel read here, nominal.
        forward: slot of the noise of its mean square, or of its variance.
        signal: slot of the noise of its kernel: of the signal that the layer sends back.
        cross: slot of the noise of the kernels behind it, here and at later readers: of the
            products of those signals.
        common: slot of the noise of its squared mean, where the two are told apart because a
            batch norm takes the mean away; -1 elsewhere.
    """

    unit: Unit
    kernel: float
    forward: int
    signal: int
    cross: int
    common: int


class Readings:
    """Averages over units as they are read in turn, each with its own slot of noise.

    Attributes:
        sampler: integrals over units.
        slots: the noise of every average over units, in execution order.
        shifts: which of them are shifts of a mean instead of factors of an energy.
        reads, norms: what layers read, and the norms that divide by an example's own energy.
        batched: layers (by operator) whose output a batch norm reads: its batch, or None where
            others read it as well.
    """

    batched: dict[str, Batch | None]

    def start(self, sampler: Sampler, noise: Noise) -> None:
        """Begin anew.

        Args:
            sampler: integrals over units.
            noise: makes the noise of each slot.
        """
        self.sampler = sampler
        self._noise = noise
        self.slots: list[Tensor] = []
        self.shifts: list[bool] = []
        self.reads: list[Read] = []
        self.norms: list[Norm] = []
        self._crossed: dict[GaussianTerm, Tensor] = {}
        self._grown: tuple[Unit, Tensor] | None = None
        self._changes: tuple[Unit, Tensor] | None = None
        self._moved: dict[GaussianTerm, Tensor] = {}
        self._rates: dict[GaussianTerm, Tensor] = {}

    def read(self, x: Moments) -> Signal:
        """What a layer reads of a value: its mean square and kernel, with the units' noise."""
        squares, news, commons, kernels = [], [], [], []
        for part in x.parts:
            square, slot, first = self.square(part.unit), -1, len(self.slots)
            common = self._common(part.unit, nominal_value(square)) if self.batched else None
            fresh = self.slot()
            varying = square if common is None else square - common
            squares.append(_share(part, varying) * fresh)
            if len(x.parts) > 1:
                news.append(nominal_value(squares[-1]) * fresh)
            self._cross(part.unit, self.slot())
            kernel = self._kernel(part.unit)
            kernels.append(_share(part, kernel) * self.slot())
            if common is not None and nominal_value(common) > 0:
                slot = len(self.slots)
                commons.append(_share(part, common) * self.slot())
            read = Read(part.unit, nominal_value(kernel), first, first + 2, first + 1, slot)
            self.reads.append(read)
        q = sum(squares[1:], squares[0])
        common_q = sum(commons[1:], commons[0]) if commons else scalar(0.0)
        total = nominal_value(q) + (nominal_value(common_q) if commons else 0.0)
        if not math.isfinite(total) or (total == 0 and any(p.unit.inputs for p in x.parts)):
            raise signal_range_error(total, "a layer")
        size = nominal_value(q) or 1.0
        if news:
            fresh = sum(news[1:], news[0]) / size
        overlap = sum(p.weight * overlap_of(p.unit, self.sampler.sense(p.unit)) for p in x.parts)
        return Signal(q, sum(kernels[1:], kernels[0]), common_q, fresh, overlap / size)

    def _cross(self, unit: Unit, noise: Tensor) -> None:
        """Signals that are sent back meet those of later readers."""
        crossed = self._crossed
        for term in unit.terms:
            crossed[term] = crossed[term] * noise if term in crossed else noise

    def _common(self, unit: Unit, square: float) -> Tensor | None:
        """What a batch's mean takes from E[x^2]; an example's own noise does not move that mean.

        None where it is next to nothing.
        """
        still = self.sampler.varying(unit)
        varying = self.sampler.sense(still)
        rest = max(square - varying.square, 0.0)
        if rest + varying.mean**2 < _SLIGHT * square:
            return None
        moved = mean_moved(varying, self.moved(still))
        return moved * (2 * varying.mean) + (rest + varying.mean**2)

    def output(self, x: Moments) -> Tensor:
        """The tangent kernel of the model's output, per unit."""
        kernels = [p.weight * self._kernel(p.unit) for p in x.parts]
        return sum(kernels[1:], kernels[0])

    def slot(self, *, shift: bool = False) -> Tensor:
        """The next slot's noise: a factor, or a shift."""
        self.slots.append(self._noise(shift))
        self.shifts.append(shift)
        return self.slots[-1]

    def square(self, unit: Unit) -> Tensor:
        """E[x^2] over units."""
        return self._growth(unit)[0]

    def _kernel(self, unit: Unit) -> Tensor:
        """The tangent kernel of a unit: the terms' kernels by its squared slopes.

        What comes by way of other examples, behind batch norms, has no noise of its own.
        """
        kernels = stacked([self._rate(term) for term in unit.terms])
        if unit.effective_batch_size:
            shares = [
                own_share(unit.effective_batch_size.get(term, math.inf)) for term in unit.terms
            ]
            shares_of_own = torch.from_numpy(np.array(shares)[:, None])
            kernels = kernels[:, :1].detach().lerp(kernels, shares_of_own)
        growth = self._growth(unit)
        return (growth[1:] * kernels).sum(0) if len(kernels) > 1 else growth[1] * kernels[0]

    def _rate(self, term: GaussianTerm) -> Tensor:
        """A term's kernel in units of its variance, with the noise of products of signals."""
        if term not in self._rates:
            self._rates[term] = term.rate
        rate = self._rates[term]
        return rate * self._crossed[term] if term in self._crossed else rate

    def _growth(self, unit: Unit) -> Tensor:
        """E[x^2], then the squared slopes by the terms, ``[1 + terms, draws]``."""
        if self._grown is None or self._grown[0] is not unit:
            self._grown = unit, grown(self.sampler.sense(unit), self.moved(unit), unit)
        return self._grown[1]

    def moved(self, unit: Unit) -> Tensor:
        """Changes of the parameters behind a unit; the last are kept."""
        if self._changes is None or self._changes[0] is not unit:
            for term in unit.terms:
                if term not in self._moved:
                    self._moved[term] = change(term)
            self._changes = unit, changes(unit, [self._moved[term] for term in unit.terms])
        return self._changes[1]


def _share(part: Part, value: Tensor) -> Tensor:
    return value if part.weight == 1.0 else part.weight * value
