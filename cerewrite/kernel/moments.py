"""What moment rules may ask, and the noise of finite width (docs/theory.md, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.kernel import values as algebra
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
from cerewrite.kernel.points import points_for
from cerewrite.kernel.units import GaussianTerm, Norm, Unit, make_unit, without_shared_part
from cerewrite.kernel.values import (
    Moments,
    Part,
    Signal,
    gaussian_value,
    scalar,
    signal_range_error,
)
from cerewrite.kernel.weights import Layers, Weights

_SLIGHT = 1e-4
"""Share of a mean square below which what examples have in common is left out: the resolution of
units of many leaves."""

Noise = Callable[[bool], Tensor]
"""Makes the next slot of noise: a factor on an energy, or (True) a shift of a mean."""

VIEWS = frozenset(
    {"view", "reshape", "unsqueeze", "squeeze", "_unsafe_view", "contiguous", "alias", "detach"}
    | {"clone", "to", "_to_copy", "type_as"}
)
"""Operators that show a parameter under another shape or type."""


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


class MomentContext(Weights):
    """What moment rules may ask: layers, weight scales, and what is read where.

    Args:
        model: the module, asked for the values of its norms' scales and free parameters.
        traced: its trace.
        standard: standard instead of NTK parametrisation.
        gain: the ``fan_in * Var[W]`` to assume for every layer, biases zero; None for as built.
        sampler: integrals over units, where they have been taken before.
        noise: makes the noise of each slot; None for none, but its derivative.

    Attributes:
        layers: sampled layers by the name of their operator.
        sampler: integrals over units.
        slots: the noise of every average over units, in execution order.
        shifts: which of them are shifts of a mean instead of factors of an energy.
        route: the operators that are asked, and what each of them reads; empty before it is known.
        reads, norms: what layers read, and the norms that divide by an example's own energy.
        batched: layers (by operator) whose output a batch norm reads, and whether nothing else
            does.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: TracedModel,
        *,
        standard: bool = False,
        gain: float | None = None,
        sampler: Sampler | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(model, traced, standard=standard, gain=gain)
        self.layers = Layers({layer.node: layer for layer in traced.layers})
        self._ops = {op.name: op for op in traced.ops}
        self.batched: dict[str, Batch | None] = {}
        self.route: tuple[tuple[Op, tuple[str, ...]], ...] = ()
        self._start(sampler or Sampler(points_for(len(traced.layers))), noise or _zero)

    def replay(self, noise: Noise) -> MomentContext:
        """The same questions in the same order, under other noise: integrals are not taken anew."""
        other = copy(self)
        other._start(self.sampler.replay(), noise)
        return other

    def _start(self, sampler: Sampler, noise: Noise) -> None:
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

    def is_standalone(self, name: str) -> bool:
        """Whether a value is a free parameter, perhaps seen under another shape."""
        op = self._ops[name]
        while op.target in VIEWS and op.inputs:
            op = self._ops[op.inputs[0]]
        return op.target == "parameter"

    def rescale(self, x: Moments, scale: Moments) -> Moments:
        """A value times a free parameter.

        Under a gain that is not the model's own, scales are 1: what counts then is the
        architecture, not how its branches start.
        """
        if self._gain is not None:
            own = torch.stack([part.unit.leaves[0].kernel for part in scale.parts]).sum(0)
            scale = gaussian_value(scalar(1.0), own, constant=True)
        return algebra.multiply(x, scale)

    def scale(self, x: Moments, square: float) -> Moments:
        """A value times constants of a known mean square, which get no kernel of their own."""
        return algebra.multiply(x, gaussian_value(scalar(square), scalar(0.0), constant=True))

    def sizes(self, op: Op) -> list[int]:
        """Elements of each operand."""
        return [self._ops[name].numel for name in op.inputs]

    def find(self, name: str) -> Op:
        """An operator by name."""
        return self._ops[name]

    def operand(self, op: Op) -> Op:
        """The operator that makes the first operand."""
        return self._ops[op.inputs[0]]

    def operands(self, op: Op) -> list[Op]:
        """The operators that make all operands."""
        return [self._ops[name] for name in op.inputs]

    def weigh(self, layer: Layer, x: Signal) -> Moments:
        """A linear or convolution layer: ``q = s q + b`` and ``T = L q + l + s T``.

        In front of a batch norm, what all examples have in common is a leaf of its own, or is
        left out where nothing else reads it.
        """
        gain = layer.gain if self._gain is None else self._gain
        bias = layer.bias_variance if self._gain is None else 0.0
        scale = float(layer.fan_in) if self.standard else gain
        bias_scale = float(layer.bias) if self.standard else 0.0
        if layer.node not in self.batched:
            kernel = scale * x.square + bias_scale + gain * x.kernel
            leaf = _leaf(layer, gain * x.square + bias, kernel)
            leaf = replace(
                leaf, overlap=x.overlap * nominal_value(x.q) / (nominal_value(x.square) or 1.0)
            )
            return Moments((Part(make_unit("leaf", leaf=leaf), 1.0),))
        batch = self.batched[layer.node]
        q, nominal = gain * x.q, nominal_value(x.q)
        kernel = gain * (x.q + x.kernel) if scale == gain else scale * x.q + gain * x.kernel
        if batch is not None and nominal > 0:
            divided = batch.divided(x.q / nominal, x.fresh, x.overlap)
            q, kernel = q * divided, kernel * divided
        own = replace(_leaf(layer, q, kernel), overlap=x.overlap)
        unit = make_unit("leaf", leaf=own)
        if batch is None and nominal_value(x.common) * gain + bias > 0:
            kernel = scale * x.common + bias_scale
            common = _leaf(layer, gain * x.common + bias, kernel, common=True)
            unit = make_unit("add", unit, make_unit("leaf", leaf=common))
        return Moments((Part(unit, 1.0),))

    def apply(self, function: Callable[..., Any] | None, key: Any, x: Moments) -> Moments:
        """A pointwise function, unit by unit."""
        parts = []
        for part in x.parts:
            largest = max(max(abs(leaf.mean), leaf.deviation) for leaf in part.unit.leaves)
            if not 0 < largest < math.inf:
                raise signal_range_error(largest**2, key)
            unit = make_unit("apply", part.unit, function=function, key=key)
            parts.append(Part(unit, part.weight))
        return Moments(tuple(parts), constant=x.constant)

    def read(self, x: Moments) -> Signal:
        """What a layer reads of a value: its mean square and kernel, with the units' noise."""
        squares, news, commons, kernels = [], [], [], []
        for part in x.parts:
            square, slot, first = self.square(part.unit), -1, len(self.slots)
            common = self._common(part.unit, nominal_value(square)) if self.batched else None
            fresh = self.slot()
            own = square if common is None else square - common
            squares.append(_share(part, own) * fresh)
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
        for leaf in unit.leaves:
            crossed[leaf] = crossed[leaf] * noise if leaf in crossed else noise

    def _common(self, unit: Unit, square: float) -> Tensor | None:
        """What a batch's mean takes from E[x^2]; an example's own noise does not move that mean.

        None where it is next to nothing.
        """
        still = without_shared_part(unit)
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
        """The tangent kernel of a unit: the leaves' kernels by its squared slopes.

        What comes by way of other examples, behind batch norms, has no noise of its own.
        """
        kernels = stacked([self._rate(leaf) for leaf in unit.leaves])
        if unit.effective_batch_size:
            shares = [
                own_share(unit.effective_batch_size.get(leaf, math.inf)) for leaf in unit.leaves
            ]
            own = torch.from_numpy(np.array(shares)[:, None])
            kernels = kernels[:, :1].detach().lerp(kernels, own)
        growth = self._growth(unit)
        return (growth[1:] * kernels).sum(0) if len(kernels) > 1 else growth[1] * kernels[0]

    def _rate(self, leaf: GaussianTerm) -> Tensor:
        """A leaf's kernel in units of its variance, with the noise of products of signals."""
        if leaf not in self._rates:
            self._rates[leaf] = leaf.rate
        rate = self._rates[leaf]
        return rate * self._crossed[leaf] if leaf in self._crossed else rate

    def _growth(self, unit: Unit) -> Tensor:
        """E[x^2], then the squared slopes by the leaves, ``[1 + leaves, draws]``."""
        if self._grown is None or self._grown[0] is not unit:
            self._grown = unit, grown(self.sampler.sense(unit), self.moved(unit), unit)
        return self._grown[1]

    def moved(self, unit: Unit) -> Tensor:
        """Changes of the parameters behind a unit; the last are kept."""
        if self._changes is None or self._changes[0] is not unit:
            for leaf in unit.leaves:
                if leaf not in self._moved:
                    self._moved[leaf] = change(leaf)
            self._changes = unit, changes(unit, [self._moved[leaf] for leaf in unit.leaves])
        return self._changes[1]


def _leaf(layer: Layer, q: Tensor, kernel: Tensor, *, common: bool = False) -> GaussianTerm:
    deviation = math.sqrt(max(nominal_value(q), 0.0))
    return GaussianTerm(layer.name, 0.0, deviation, layer.out_channels, 1.0, q, kernel, common)


def _share(part: Part, value: Tensor) -> Tensor:
    return value if part.weight == 1.0 else part.weight * value


def _zero(shift: bool) -> Tensor:
    """No noise, but its derivative."""
    return torch.full((1,), float(not shift), dtype=torch.float64, requires_grad=True)
