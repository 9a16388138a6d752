"""What moment rules may ask about the model they belong to (docs/theory.md, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.kernel import values as algebra
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.integrals import Sampler
from cerewrite.kernel.points import points_for
from cerewrite.kernel.reading import Noise, Readings
from cerewrite.kernel.units import GaussianTerm, make_unit
from cerewrite.kernel.values import (
    Moments,
    Part,
    Signal,
    gaussian_value,
    scalar,
    signal_range_error,
)
from cerewrite.kernel.weights import Layers, Weights

VIEWS = frozenset(
    {"view", "reshape", "unsqueeze", "squeeze", "_unsafe_view", "contiguous", "alias", "detach"}
    | {"clone", "to", "_to_copy", "type_as"}
)
"""Operators that show a parameter under another shape or type."""


_MOVING = frozenset({"permute", "transpose", "movedim", "swapaxes", "t", "view", "reshape"})
"""Operators behind which the channel axis may be another."""


class MomentContext(Weights, Readings):
    """What moment rules may ask: layers, weight scales, and what is read where.

    Args:
        model: the module, asked for the values of its norms' scales and free parameters.
        traced: its trace.
        standard: standard instead of NTK parametrisation.
        gain: the ``fan_in * Var[W]`` to assume for every layer, biases zero; None for as built.

    Raises:
        NoClosedFormError: if a layer is called several times.

    Attributes:
        layers: sampled layers by the name of their operator.
        route: what each operator that is asked reads, in execution order; empty before it is known.
        optional: those that only attention's logits need.
        batch: examples that the model was traced with.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: TracedModel,
        *,
        standard: bool = False,
        gain: float | None = None,
    ) -> None:
        super().__init__(model, traced, standard=standard)
        self._gain = gain
        for layer in traced.layers:
            if layer.again:
                raise NoClosedFormError(
                    f"no closed form for '{layer.name}', called {len(layer.nodes)} times: its "
                    "calls have their weights in common",
                    advice=NoClosedFormError.ADVICE,
                )
        self.layers = Layers({layer.node: layer for layer in traced.layers})
        self.batch = traced.batch
        self._ops = {op.name: op for op in traced.ops}
        self._axes = traced.axes
        self.batched = {}
        self.route: Mapping[str, tuple[str, ...]] = {}
        self.optional: frozenset[str] = frozenset()
        self.start(Sampler(points_for(len(traced.layers))), _zero)

    def replay(self, noise: Noise) -> MomentContext:
        """The same questions in the same order, under other noise: integrals are not taken anew."""
        other = copy(self)
        other.start(self.sampler.replay(), noise)
        return other

    def scale(self, x: Moments, square: float) -> Moments:
        """A value times constants of a known mean square, which get no kernel of their own."""
        return algebra.multiply(x, gaussian_value(scalar(square), scalar(0.0), constant=True))

    def channel_axis(self, op: Op) -> int:
        """The channel axis of an operator's output: as traced, else its usual place.

        That is where the operators before had it, else the last axis of up to three, and axis 1 of
        images.
        """
        rank = len(op.shape)
        while op.name not in self._axes and op.inputs and op.target not in _MOVING:
            op = self._ops[op.inputs[0]]
            if op.shape and len(op.shape) != rank:
                break
        found = self._axes.get(op.name)
        usual = rank - 1 if rank <= 3 else 1
        return usual if found is None or len(op.shape) != rank else found

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

    def token(self, name: str, positions: int) -> int:
        """The position that is picked out of a sequence somewhere behind a value; -1 if none is."""
        behind = {name}
        for op in self._ops.values():
            if behind.isdisjoint(op.inputs):
                continue
            behind.add(op.name)
            shape = self._ops[op.inputs[0]].shape
            if len(shape) > 2 and shape[-2] == positions and (at := _picked(op, len(shape))):
                return at[0] % positions
        return -1

    def weigh(self, layer: Layer, x: Signal, level: float | None = None) -> Moments:
        """A linear or convolution layer: ``q = s q + b`` and ``T = L q + l + s T``.

        In front of a batch norm, what all examples have in common is a term of its own, or is
        left out where nothing else reads it.

        Args:
            layer: the layer.
            x: what it reads.
            level: ``fan_in`` times the mean square of a weight that is standardised, which the
                gain of the raw one does not move (docs/theory.md, section 36).
        """
        gain = layer.gain if self._gain is None else self._gain
        bias = layer.bias_variance if self._gain is None else 0.0
        scale = float(layer.fan_in) if self.standard else gain
        if level is not None:  # eq. 130
            scale, gain = scale * level / gain if gain > 0 else 0.0, level
        bias_scale = float(layer.bias) if self.standard else 0.0
        if layer.node not in self.batched:
            kernel = scale * x.square + bias_scale + gain * x.kernel
            term = _term(layer, gain * x.square + bias, kernel)
            term = replace(
                term, overlap=x.overlap * nominal_value(x.q) / (nominal_value(x.square) or 1.0)
            )
            return Moments((Part(make_unit("term", term=term), 1.0),))
        batch = self.batched[layer.node]
        q, nominal = gain * x.q, nominal_value(x.q)
        kernel = gain * (x.q + x.kernel) if scale == gain else scale * x.q + gain * x.kernel
        if batch is not None and nominal > 0:
            divided = batch.divided(x.q / nominal, x.fresh, x.overlap)
            q, kernel = q * divided, kernel * divided
        varying = replace(_term(layer, q, kernel), overlap=x.overlap)
        unit = make_unit("term", term=varying)
        if batch is None and nominal_value(x.common) * gain + bias > 0:
            kernel = scale * x.common + bias_scale
            common = _term(layer, gain * x.common + bias, kernel, common=True)
            unit = make_unit("add", unit, make_unit("term", term=common))
        return Moments((Part(unit, 1.0),))

    def apply(self, function: Callable[..., Any] | None, key: Any, x: Moments) -> Moments:
        """A pointwise function, unit by unit."""
        parts = []
        for part in x.parts:
            largest = max(max(abs(term.mean), term.deviation) for term in part.unit.terms)
            if x.constant and not largest and function is not None:  # zeros that the forward makes
                value = float(function(torch.zeros(1, dtype=torch.float64)))
                return gaussian_value(scalar(value**2), scalar(0.0), constant=True)
            if not 0 < largest < math.inf:
                raise signal_range_error(
                    largest**2, f"'{key[0] if isinstance(key, tuple) else key}'"
                )
            unit = make_unit("apply", part.unit, function=function, key=key)
            parts.append(Part(unit, part.weight))
        return Moments(tuple(parts), constant=x.constant)


def _picked(op: Op, rank: int) -> tuple[int, ...]:
    """The one entry of the last axis but one that an operator picks, if that is what it does."""
    if op.target == "getitem" and len(op.args) > 1 and isinstance(op.args[1], tuple | list):
        given = op.args[1][rank - 2] if len(op.args[1]) > rank - 2 else None
        return (given,) if type(given) is int else ()
    if len(op.args) < 3 or op.args[1] not in (rank - 2, -2) or type(op.args[2]) is not int:
        return ()
    ends = op.args[3] if len(op.args) > 3 else None
    one = op.target == "select" or (op.target == "slice" and ends == op.args[2] + 1)
    return (op.args[2],) if one else ()


def _term(layer: Layer, q: Tensor, kernel: Tensor, *, common: bool = False) -> GaussianTerm:
    deviation = math.sqrt(max(nominal_value(q), 0.0))
    return GaussianTerm(layer.name, 0.0, deviation, layer.out_channels, 1.0, q, kernel, common)


def _zero(shift: bool) -> Tensor:
    """No noise, but its derivative."""
    return torch.full((1,), float(not shift), dtype=torch.float64, requires_grad=True)
