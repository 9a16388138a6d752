"""Maps along the operators of a model: moments over points, samples of units, what layers read."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.estimators.base import Assumption
from cerewrite.estimators.maps.fields import (
    Field,
    batch_normed,
    batch_normed_units,
    convolved,
    draw,
    dual,
    patches,
)
from cerewrite.estimators.maps.norms import affine, group_normed, rescaled, running, shifted
from cerewrite.estimators.maps.pool import Maximum, average, moments, refused
from cerewrite.estimators.maps.stem import POINTS, Pixels, Samples, sizes
from cerewrite.estimators.maps.values import Leaf, Read, Value
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.kernel.weights import Weights
from cerewrite.ops import rule_for
from cerewrite.ops.standardised import STANDARDISED

_SAMPLES = 8192
_ELEMENTS = 2**20
_MAPS = {"conv1d": 1, "conv2d": 2}


class Walk:
    """Propagation through one model.

    Args:
        traced: its trace.
        model: the module, asked for its norms' scales.
        maps: inputs, ``[examples, channels, *positions]``.
        assumption: parametrisation, gain and seed.

    Attributes:
        start: the input.
        running: whether batch norms are on running statistics.
        reads: what layers and norms read, in execution order.
        leaves: what each layer writes.
    """

    def __init__(
        self, traced: TracedModel, model: nn.Module, maps: Tensor, assumption: Assumption
    ) -> None:
        self.standard = assumption.parametrization == "standard"
        self.gain = assumption.gain
        self.running = assumption.norms == "eval"
        self.weights = Weights(model, traced, standard=self.standard)
        self.layers = {layer.node: layer for layer in traced.layers}
        self.ops = {op.name: op for op in traced.ops}
        self.examples = len(maps)
        self.generator = torch.Generator().manual_seed(assumption.seed)
        self.reads: list[Read] = []
        self.leaves: dict[str, Leaf] = {}
        points = len(maps) * sizes(traced)
        self.samples = min(_SAMPLES, _ELEMENTS // points)
        self.start: Any = self._input(maps)

    def noise(self, points: int) -> Tensor:
        """Standard normal samples of fields."""
        return torch.randn(self.samples, points, generator=self.generator, dtype=torch.float64)

    def _input(self, maps: Tensor) -> Value | Pixels:
        flat = maps.double().movedim(1, -1).reshape(-1, maps.shape[1])
        flat = flat / flat.square().mean().sqrt()
        if len(flat) > POINTS:
            return Pixels(flat, tuple(maps.shape[2:]))
        sigma = flat @ flat.T / flat.shape[1]
        units = draw(sigma, self.noise(len(sigma)))
        field = Field(sigma, torch.zeros_like(sigma), torch.zeros_like(sigma[0]))
        return Value(field, units, tuple(maps.shape[2:]), frozenset())

    def step(self, op: Op, inputs: list[Any]) -> Any:
        """One operator, on values or on a large map's `Pixels` or `Samples`."""
        rule = rule_for(op)
        name = "" if rule is None else rule.name
        if any(isinstance(x, Pixels | Samples) for x in inputs):
            return self._large(op, name, inputs)
        if name == "add" and len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
            a, b = inputs
            layers = a.layers | b.layers
            return Value(a.field.plus(b.field), a.units + b.units, a.shape, layers)
        if len(inputs) != 1:
            raise refused(f"'{op.target}' has no rule for maps")
        x = inputs[0]
        if op.target == "detach":
            still = replace(x.field, theta=torch.zeros_like(x.field.theta))
            return Value(still, x.units.detach(), x.shape, x.layers)
        match name:
            case "conv" | "linear":
                return self._layer(op, x)
            case "pointwise":
                return self._applied(op, x)
            case "pool" if "max" in op.target:
                return self._maximum(op, x)
            case "pool" | "mean":
                return self._averaged(op, x)
            case "batch_norm" if "batch" in op.target:
                return self._normed(op, x)
            case "group_norm":
                return self._normed(op, x)
            case "identity":
                return x
            case "flatten" if len(op.shape) == 2:
                return x
        raise refused(f"'{op.target}' has no rule for maps")

    def _normed(self, op: Op, x: Value) -> Value:
        """A batch norm, or a norm of each example by itself."""
        fixed = running(self.weights, op) if self.running and "batch" in op.target else None
        gain, shift = affine(self.weights, op) if fixed is None else fixed
        if fixed is not None:
            field, units = rescaled(x.field, x.units, gain)
        elif "batch" in op.target:
            field, units = batch_normed(x.field, gain), batch_normed_units(x.units, gain)
        else:
            field, units = group_normed(x.units, x.field, self._read(x), gain, self.examples)
        field, units = shifted(field, units, shift, self.noise(1))
        return Value(field, units, x.shape, x.layers)

    def _read(self, x: Value) -> Field:
        field = Field(*(_watched(m) for m in (x.field.sigma, x.field.theta, x.field.mean)))
        self.reads.append(Read(x.units, x.layers, field))
        return field

    def _layer(self, op: Op, x: Value) -> Value:
        layer = self._drawn(op)
        read = self._read(x)
        (sigma, theta), shape = self._spread(op, layer, x, read)
        return self._written(layer, sigma, theta, shape)

    def _drawn(self, op: Op) -> Layer:
        layer = self.layers.get(op.name)
        if layer is None or layer.name in self.leaves:
            raise refused(f"'{op.name}' shares its weights or has none")
        if STANDARDISED in (op.kwargs or {}):
            raise refused("weights that are standardised have no rule for maps")
        if layer.op == "depthwise_conv":
            raise refused("units behind depthwise convolutions are no Gaussian fields")
        return layer

    def _scales(self, layer: Layer) -> tuple[float, float, float, float]:
        """Gain, variance of the biases, weight of the layer's own kernel, and of its biases'."""
        gain = layer.gain if self.gain is None else self.gain
        bias = layer.bias_variance if self.gain is None else 0.0
        scale = float(layer.fan_in) if self.standard else gain
        return gain, bias, scale, float(layer.bias) if self.standard else 0.0

    def _written(self, layer: Layer, sigma: Tensor, theta: Tensor, shape: tuple[int, ...]) -> Value:
        """What a layer writes, given the means over what one output reads."""
        gain, bias, scale, own = self._scales(layer)
        theta = scale * sigma + gain * theta + own
        sigma = gain * sigma + bias
        units = draw(sigma.detach(), self.noise(len(sigma))).requires_grad_()
        self.leaves[layer.name] = Leaf(units, theta)
        field = Field(sigma, theta, torch.zeros_like(sigma[0]))
        return Value(field, units, shape, frozenset({layer.name}))

    def _large(self, op: Op, name: str, inputs: list[Any]) -> Any:
        """One operator on a map too large for matrices."""
        (x,) = inputs if len(inputs) == 1 else (None,)
        match name:
            case "conv" if isinstance(x, Pixels):
                return self._first(op, x)
            case "pointwise" if isinstance(x, Samples):
                return x.applied(op)
            case "batch_norm" if isinstance(x, Samples) and "batch" in op.target:
                fixed = running(self.weights, op) if self.running else None
                gain, shift = affine(self.weights, op) if fixed is None else fixed
                return x.normed(gain, shift**0.5 * self.noise(1), fixed=fixed is not None)
            case "pool" if isinstance(x, Samples) and "max" in op.target:
                field, units, shape = x.pooled(op, self.examples)
                return Value(field, units, shape, x.layers)
            case "identity":
                return x
        raise refused(f"maps are too large for it in front of '{op.target}'")

    def _first(self, op: Op, x: Pixels) -> Value | Samples:
        """The first layer, on the input itself."""
        layer = self._drawn(op)
        index, shape = self._patches(op, x.shape)
        root = x.read(index)
        if len(root) <= POINTS:
            sigma = root @ root.T
            return self._written(layer, sigma, torch.zeros_like(sigma), shape)
        gain, bias, scale, own = self._scales(layer)
        ones = torch.ones_like(root[:, :1])
        units = self.noise(root.shape[1]) @ root.T * gain**0.5 + self.noise(1) * bias**0.5
        leaf = Leaf(
            units.requires_grad_(), None, torch.cat([scale**0.5 * root, own**0.5 * ones], 1)
        )
        self.leaves[layer.name] = leaf
        assert leaf.root is not None
        slopes, names = torch.ones_like(units).detach(), frozenset({layer.name})
        return Samples(leaf.units, slopes, leaf.root, shape, names)

    def _applied(self, op: Op, x: Value) -> Value:
        if op.function is None:
            return x
        point = x.units.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(op.function(point.clone()).sum(), point)
        field, units = dual(op.function, x.field), op.function(x.units.clone())
        return Value(field, units, x.shape, x.layers, x.field.theta, slopes)

    def _maximum(self, op: Op, x: Value) -> Value:
        pool = Maximum(op, x.shape, self.examples)
        slopes = torch.ones_like(x.units) if x.slopes is None else x.slopes
        before = x.field.theta if x.before is None else x.before
        units, field = moments(pool, x.units, slopes, x.field, before)
        return Value(field, units, pool.shape, x.layers)

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
        index, shape = self._patches(op, x.shape)
        return [convolved(m, index) for m in (read.sigma, read.theta)], shape

    def _patches(self, op: Op, positions: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """The points that a convolution's outputs read, and the shape of its map."""
        rank = _MAPS.get(op.target, 0)
        if not rank:
            raise refused(f"'{op.target}' has no rule for maps")
        weight = self.ops[op.inputs[1]].shape[2:]
        given = [_plain(op, 3 + i, default, rank) for i, default in enumerate((1, 0, 1))]
        flat = 2 - rank
        kernel, stride, dilation = ((1,) * flat + k for k in (weight, given[0], given[2]))
        padding = (0,) * flat + given[1]
        shape = (1,) * flat + positions
        return patches(shape, self.examples, kernel, stride, padding, dilation), op.shape[2:]

    def _averaged(self, op: Op, x: Value) -> Value:
        move, shape = average(op, x.shape, self.examples)
        return Value(x.field.moved(move), move(x.units), shape, x.layers)


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
