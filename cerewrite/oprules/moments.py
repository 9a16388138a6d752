"""What moment rules may ask, and the noise that layers of finite width add (THEORY 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.oprules import values as algebra
from cerewrite.oprules.growth import changes, grown, now, stacked
from cerewrite.oprules.integrals import Sampler, points_for
from cerewrite.oprules.units import Leaf, Norm, Unit, make_unit, steady
from cerewrite.oprules.values import Moments, Part, Signal, opaque, scalar
from cerewrite.oprules.weights import Layers, Weights

_ROUNDING = 1e-9

Noise = Callable[[bool], Tensor]
"""Makes the next slot of noise: a relative change of an energy, or (True) a shift of a mean."""

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
        noise: makes the noise of each slot; None for zeros that ask for a gradient.

    Attributes:
        layers: sampled layers by the name of their operator.
        sampler: integrals over units.
        slots: the noise of every average over units, in execution order.
        shifts: which of them are shifts of a mean instead of factors of an energy.
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
        self.sampler = sampler or Sampler(points_for(len(traced.layers)))
        self.slots: list[Tensor] = []
        self.shifts: list[bool] = []
        self.reads: list[Read] = []
        self.norms: list[Norm] = []
        self._crossed: dict[Leaf, Tensor] = {}
        self._grown: tuple[Unit, Tensor] | None = None
        self._changes: tuple[Unit, Tensor] | None = None
        self.batched: dict[str, bool] = {}
        self._ops = {op.name: op for op in traced.ops}
        self._noise = noise if noise is not None else _zero

    def is_free(self, name: str) -> bool:
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
            scale = opaque(scalar(1.0), own, constant=True)
        return algebra.multiply(x, scale)

    def scale(self, x: Moments, square: float) -> Moments:
        """A value times constants of a known mean square, which get no kernel of their own."""
        return algebra.multiply(x, opaque(scalar(square), scalar(0.0), constant=True))

    def sizes(self, op: Op) -> list[int]:
        """Elements of each operand."""
        return [self._ops[name].numel for name in op.inputs]

    def operand(self, op: Op) -> Op:
        """The operator that makes the first operand."""
        return self._ops[op.inputs[0]]

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
            return Moments((Part(make_unit("leaf", leaf=leaf), 1.0),))
        own = _leaf(layer, gain * x.q, scale * x.q + gain * x.kernel)
        unit = make_unit("leaf", leaf=own)
        if not self.batched[layer.node] and now(x.common) * gain + bias > 0:
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
                raise _lost(largest**2, key)
            unit = make_unit("apply", part.unit, function=function, key=key)
            parts.append(Part(unit, part.weight))
        return Moments(tuple(parts), constant=x.constant)

    def normalise(self, op: Op, x: Moments, *, centred: bool) -> Moments:
        """A norm over an example's units: ``q = gamma^2 + beta^2``, ``T = gamma^2 T / q``.

        Args:
            op: the norm.
            x: what it reads.
            centred: whether it subtracts the mean over units.
        """
        gain = self.affine(op)[0]
        squares = [part.weight * self._square(part.unit) for part in x.parts]
        senses = [self.sampler.sense(part.unit) for part in x.parts]
        mean, shift = 0.0, scalar(0.0)
        for part, sense in zip(x.parts if centred else (), senses, strict=False):
            mean += part.weight * sense.mean
            moved = torch.from_numpy(sense.by_mean) @ self._moved(part.unit)
            shift = shift + part.weight * moved
        energy = sum(now(square) for square in squares) - mean**2
        if not 0 < energy < math.inf:
            raise _lost(energy, op.target)
        root, slots = math.sqrt(energy), []
        total = -2 * mean * shift - mean**2
        for part, sense, square in zip(x.parts, senses, squares, strict=True):
            slots.append(len(self.slots))
            own = part.weight * (sense.square - 2 * mean * sense.mean + mean**2)
            total = total + square + own * self._slot()
        shift = shift / root
        for part in x.parts if centred else ():
            shift = shift + part.weight * self._slot(shift=True)
        norm = Norm(
            mean=mean,
            scale=math.sqrt(gain) / root,
            energy=total / energy - 1,
            shift=shift,
            read=tuple((p.unit, p.weight, slot) for p, slot in zip(x.parts, slots, strict=True)),
            centred=centred,
            deviation=root,
        )
        self.norms.append(norm)
        parts = [Part(make_unit("norm", p.unit, norm=norm), p.weight) for p in x.parts]
        return self._shifted(op, Moments(tuple(parts)))

    def normalise_batch(self, op: Op, x: Moments) -> Moments:
        """A batch norm: each unit's mean and energy over a large, varied batch.

        One example's own fluctuation passes. What all examples have in common is taken away.
        """
        gain, parts = self.affine(op)[0], []
        for part in x.parts:
            unit = steady(part.unit)
            sense = self.sampler.sense(unit)
            energy = sense.square - sense.mean**2
            if not 0 < energy < math.inf:
                raise _lost(energy, op.target)
            zero, root = scalar(0.0), math.sqrt(energy)
            norm = Norm(sense.mean, math.sqrt(gain) / root, zero, zero, (), True, root)
            parts.append(Part(make_unit("norm", unit, norm=norm), part.weight))
        return self._shifted(op, Moments(tuple(parts)))

    def _shifted(self, op: Op, x: Moments) -> Moments:
        """A norm's shift, and its own parameters' kernel."""
        _, shift, own = self.affine(op)
        return algebra.add(x, opaque(scalar(shift), scalar(own))) if shift or own else x

    def read(self, x: Moments) -> Signal:
        """What a layer reads of a value: its mean square and kernel, with the units' noise."""
        squares, commons, kernels = [], [scalar(0.0)], []
        for part in x.parts:
            square, slot, first = self._square(part.unit), -1, len(self.slots)
            common = self._common(part.unit, now(square)) if self.batched else scalar(0.0)
            squares.append(part.weight * (square - common) * (1 + self._slot()))
            crossed = 1 + self._slot()
            for leaf in part.unit.leaves:
                self._crossed[leaf] = self._crossed.get(leaf, 1.0) * crossed
            kernel = self._kernel(part.unit)
            kernels.append(part.weight * kernel * (1 + self._slot()))
            if now(common) > 0:
                slot = len(self.slots)
                commons.append(part.weight * common * (1 + self._slot()))
            read = Read(part.unit, now(kernel), first, first + 2, first + 1, slot)
            self.reads.append(read)
        q, common_q = (sum(terms[1:], terms[0]) for terms in (squares, commons))
        total = now(q) + now(common_q)
        if not math.isfinite(total) or (total == 0 and any(p.unit.inputs for p in x.parts)):
            raise _lost(total, "a layer")
        return Signal(q, sum(kernels[1:], kernels[0]), common_q)

    def _common(self, unit: Unit, square: float) -> Tensor:
        """What a batch's mean takes from E[x^2]; an example's own noise does not move that mean."""
        still = steady(unit)
        varying = self.sampler.sense(still)
        rest = max(square - varying.square, 0.0)
        if rest + varying.mean**2 < _ROUNDING * square:
            return scalar(0.0)
        moved = torch.from_numpy(varying.by_mean) @ self._moved(still)
        return rest + varying.mean * (varying.mean + 2 * moved)

    def output(self, x: Moments) -> Tensor:
        """The tangent kernel of the model's output, per unit."""
        kernels = [p.weight * self._kernel(p.unit) for p in x.parts]
        return sum(kernels[1:], kernels[0])

    def _slot(self, *, shift: bool = False) -> Tensor:
        self.slots.append(self._noise(shift))
        self.shifts.append(shift)
        return self.slots[-1]

    def _square(self, unit: Unit) -> Tensor:
        """E[x^2] over units."""
        return self._growth(unit)[0]

    def _kernel(self, unit: Unit) -> Tensor:
        """The tangent kernel of a unit: the leaves' kernels by its squared slopes."""
        kernels = stacked([leaf.rate * self._crossed.get(leaf, 1.0) for leaf in unit.leaves])
        return (self._growth(unit)[1:] * kernels).sum(0)

    def _growth(self, unit: Unit) -> Tensor:
        """E[x^2], then the squared slopes by the leaves, ``[1 + leaves, draws]``."""
        if self._grown is None or self._grown[0] is not unit:
            self._grown = unit, grown(self.sampler.sense(unit), self._moved(unit), unit)
        return self._grown[1]

    def _moved(self, unit: Unit) -> Tensor:
        """Changes of the parameters behind a unit; the last are kept."""
        if self._changes is None or self._changes[0] is not unit:
            self._changes = unit, changes(unit)
        return self._changes[1]


def _leaf(layer: Layer, q: Tensor, kernel: Tensor, *, common: bool = False) -> Leaf:
    deviation = math.sqrt(max(now(q), 0.0))
    return Leaf(layer.name, 0.0, deviation, layer.out_channels, 1.0, q, kernel, common)


def _lost(value: float, where: Any) -> AnalysisError:
    return AnalysisError(
        f"the mean square reaches {value:g} before {where or 'a layer'}",
        advice="the signal dies or explodes at this initialisation: try --gain he",
    )


def _zero(shift: bool) -> Tensor:
    """No noise, but its derivative."""
    return torch.zeros(1, dtype=torch.float64, requires_grad=True)
