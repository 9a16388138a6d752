"""Maps along the operators of a model: moments over points, samples of units, what layers read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cerewrite.errors import AnalysisError
from cerewrite.estimators.base import Assumption
from cerewrite.estimators.fields import (
    Field,
    Move,
    batch_normed,
    batch_normed_units,
    convolved,
    draw,
    dual,
    patches,
)
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.oprules import rule_for
from cerewrite.oprules.weights import Weights

_SAMPLES = 8192
_ELEMENTS = 2**20
POINTS = 512
"""Points, positions times examples, that a value may have; batch norms see fewer examples."""
_MAPS = {"conv1d": 1, "conv2d": 2}


@dataclass(frozen=True, slots=True)
class Value:
    """A unit over all points.

    Attributes:
        field: its moments.
        units: samples of it, ``[samples, points]``.
        shape: positions of one example.
        layers: the layers that write into it.
    """

    field: Field
    units: Tensor
    shape: tuple[int, ...]
    layers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Read:
    """What a layer or a norm reads: a value, and its moments as they are read there."""

    value: Value
    field: Field


def refused(reason: str) -> AnalysisError:
    """Why there is no closed form on maps."""
    return AnalysisError(
        f"no spatial factor in closed form: {reason}",
        advice="use --estimator jackknife, which measures it, or analytic, which takes 1",
    )


class Walk:
    """Propagation through one model.

    Args:
        traced: its trace.
        model: the module, asked for its norms' scales.
        maps: inputs, ``[examples, channels, *positions]``.
        assumption: parametrisation, gain and seed.

    Attributes:
        start: the input.
        reads: what layers and norms read, in execution order.
        leaves: samples of what each layer writes, and its tangent kernel.
    """

    def __init__(
        self, traced: TracedModel, model: nn.Module, maps: Tensor, assumption: Assumption
    ) -> None:
        self.standard = assumption.parametrization == "standard"
        self.gain = assumption.gain
        self.weights = Weights(model, standard=self.standard)
        self.layers = {layer.node: layer for layer in traced.layers}
        self.ops = {op.name: op for op in traced.ops}
        self.examples = len(maps)
        self.generator = torch.Generator().manual_seed(assumption.seed)
        self.reads: list[Read] = []
        self.leaves: dict[str, tuple[Tensor, Tensor]] = {}
        points = len(maps) * prod(maps.shape[2:])
        self.samples = min(_SAMPLES, _ELEMENTS // points)
        self.start = self._input(maps)

    def noise(self, points: int) -> Tensor:
        """Standard normal samples of fields."""
        return torch.randn(self.samples, points, generator=self.generator, dtype=torch.float64)

    def _input(self, maps: Tensor) -> Value:
        flat = maps.double().movedim(1, -1).reshape(-1, maps.shape[1])
        sigma = flat @ flat.T / flat.shape[1]
        sigma = sigma / sigma.diagonal().mean()
        units = draw(sigma, self.noise(len(sigma)))
        field = Field(sigma, torch.zeros_like(sigma), torch.zeros_like(sigma[0]))
        return Value(field, units, tuple(maps.shape[2:]), frozenset())

    def step(self, op: Op, inputs: list[Value]) -> Value:
        """One operator."""
        rule = rule_for(op)
        name = "" if rule is None else rule.name
        if name == "add" and len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
            a, b = inputs
            layers = a.layers | b.layers
            return Value(a.field.plus(b.field), a.units + b.units, a.shape, layers)
        if len(inputs) != 1:
            raise refused(f"'{op.target}' has no rule for maps")
        x = inputs[0]
        match name:
            case "conv" | "linear":
                return self._layer(op, x)
            case "pointwise":
                units = x.units if op.function is None else op.function(x.units.clone())
                return replace(x, field=dual(op.function, x.field), units=units)
            case "pool" | "mean":
                return self._averaged(op, x)
            case "batch_norm" if "batch" in op.target:
                gain = self._affine(op)
                units = batch_normed_units(x.units, gain)
                return replace(x, field=batch_normed(x.field, gain), units=units)
            case "group_norm":
                return self._group_normed(op, x)
            case "identity":
                return x
            case "flatten" if len(op.shape) == 2:
                return x
        raise refused(f"'{op.target}' has no rule for maps")

    def _affine(self, op: Op) -> float:
        gain, shift, own = self.weights.affine(op)
        if shift or own:
            raise refused(f"'{op.target}' has shifts or a kernel of its own")
        return gain

    def _read(self, x: Value) -> Field:
        field = Field(*(_watched(m) for m in (x.field.sigma, x.field.theta, x.field.mean)))
        self.reads.append(Read(x, field))
        return field

    def _layer(self, op: Op, x: Value) -> Value:
        layer = self.layers.get(op.name)
        if layer is None or layer.name in self.leaves:
            raise refused(f"'{op.name}' shares its weights or has none")
        read = self._read(x)
        (sigma, theta), shape = self._spread(op, layer, x, read)
        gain = layer.gain if self.gain is None else self.gain
        bias = layer.bias_variance if self.gain is None else 0.0
        scale = float(layer.fan_in) if self.standard else gain
        own = float(layer.bias) if self.standard else 0.0
        theta = scale * sigma + gain * theta + own
        sigma = gain * sigma + bias
        units = draw(sigma.detach(), self.noise(len(sigma))).requires_grad_()
        self.leaves[layer.name] = (units, theta)
        field = Field(sigma, theta, torch.zeros_like(sigma[0]))
        return Value(field, units, shape, frozenset({layer.name}))

    def _spread(
        self, op: Op, layer: Layer, x: Value, read: Field
    ) -> tuple[list[Tensor], tuple[int, ...]]:
        """Means over what one output reads, and the shape of the map."""
        count = prod(x.shape)
        if op.target == "linear":
            if len(op.shape) != 2 or layer.kernel != count:
                raise refused("a linear layer over positions")
            blocks = [
                m.view(self.examples, count, self.examples, count) for m in (read.sigma, read.theta)
            ]
            return [torch.einsum("apbp->ab", m) / count for m in blocks], ()
        rank = _MAPS.get(op.target, 0)
        if not rank:
            raise refused(f"'{op.target}' has no rule for maps")
        weight = self.ops[op.inputs[1]].shape[2:]
        given = [_plain(op, 3 + i, default, rank) for i, default in enumerate((1, 0, 1))]
        flat = 2 - rank
        kernel, stride, dilation = ((1,) * flat + k for k in (weight, given[0], given[2]))
        padding = (0,) * flat + given[1]
        shape = (1,) * flat + x.shape
        index = patches(shape, self.examples, kernel, stride, padding, dilation)
        return [convolved(m, index) for m in (read.sigma, read.theta)], op.shape[2:]

    def _averaged(self, op: Op, x: Value) -> Value:
        move, shape = _average(op, x.shape, self.examples)
        return Value(x.field.moved(move), move(x.units), shape, x.layers)

    def _group_normed(self, op: Op, x: Value) -> Value:
        gain, own, read = self._affine(op), x.field, self._read(x)
        mean = read.mean.view(self.examples, -1).mean(1)
        energy = read.sigma.diagonal().view(self.examples, -1).mean(1) - mean**2
        shift, scale = (
            per.repeat_interleave(prod(x.shape)) for per in (mean, (gain / energy).sqrt())
        )
        cross, ratio = torch.outer(shift, own.mean), torch.outer(scale, scale)
        sigma = (own.sigma - cross - cross.T + torch.outer(shift, shift)) * ratio
        field = Field(sigma, own.theta * ratio, (own.mean - shift) * scale)
        return replace(x, field=field, units=(x.units - shift.detach()) * scale.detach())


def _watched(matrix: Tensor) -> Tensor:
    """A copy of its own, whose derivative can be asked for."""
    return matrix + torch.zeros_like(matrix, requires_grad=True)


def _plain(op: Op, at: int, default: int, rank: int) -> tuple[int, ...]:
    """A convolution's stride, padding or dilation."""
    found: Any = op.args[at] if len(op.args) > at else default
    name = ("stride", "padding", "dilation")[at - 3]
    found = (op.kwargs or {}).get(name, found)
    if isinstance(found, str):
        raise refused(f"padding '{found}'")
    return (found,) * rank if isinstance(found, int) else (tuple(found) * rank)[:rank]


def _average(op: Op, shape: tuple[int, ...], examples: int) -> tuple[Move, tuple[int, ...]]:
    """An average over positions as a linear map of fields."""
    outer = tuple(op.shape[2:])
    if prod(outer) == 1 and ("avg" in op.target or op.target == "mean"):
        return lambda m: m.view(len(m), examples, -1).mean(-1), outer
    if op.target in ("avg_pool2d", "adaptive_avg_pool2d") and len(shape) == 2:
        args, kwargs = op.args[1:], dict(op.kwargs or {})
        pool = getattr(functional, op.target)

        def move(m: Tensor) -> Tensor:
            maps = m.reshape(-1, 1, *shape)
            pooled: Tensor = pool(maps, *args, **kwargs)
            return pooled.reshape(len(m), -1)

        return move, outer
    raise refused(f"'{op.target}' has no rule for maps")


def examples_of(traced: TracedModel, maps: Tensor) -> int:
    """How many examples are looked at: batch norms need several."""
    rules = [rule_for(op) for op in traced.ops]
    batched = any(rule is not None and rule.name == "batch_norm" for rule in rules)
    positions = max(prod(op.shape[2:]) for op in traced.ops)
    if positions * (2 if batched else 1) > POINTS:
        raise refused(f"maps of {positions} positions are too large for it")
    if batched and len(maps) < 2:
        raise refused("batch norms need two examples")
    return min(len(maps), POINTS // positions) if batched else 1
