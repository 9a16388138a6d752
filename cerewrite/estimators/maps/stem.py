"""Maps too large for matrices over their points: a first layer's units up to the pool behind it.

The first layer reads the input itself, so that its units' moments and kernel are products of the
patches that it reads. Norms and functions act on samples of units; the maximum behind them leads
to a map small enough for matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from cerewrite.estimators.maps.fields import Field, batch_normed_units
from cerewrite.estimators.maps.pool import Maximum, refused
from cerewrite.ir import Op, TracedModel
from cerewrite.ops import rule_for

POINTS = 1024
"""Points, positions times examples, of a map with matrices; batch norms see fewer examples."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """An input without matrices.

    Attributes:
        features: its channels at every point, of mean square 1, ``[points, channels]``.
        shape: positions of one example.
    """

    features: Tensor
    shape: tuple[int, ...]

    def read(self, index: Tensor) -> Tensor:
        """What every output reads, over the root of its size: ``[outputs, kernel * channels]``."""
        padded = functional.pad(self.features, (0, 0, 1, 0))
        rows = padded[index.T].flatten(1)
        scaled: Tensor = rows / rows.shape[1] ** 0.5
        return scaled


@dataclass(frozen=True, slots=True)
class Samples:
    """A first layer's unit on a large map.

    Attributes:
        units: samples of it, ``[samples, points]``.
        slopes: their derivatives by what the layer writes, point by point.
        root: square root of the layer's tangent kernel, ``[points, rank]``.
        shape: positions of one example.
        layers: the layer.
    """

    units: Tensor
    slopes: Tensor
    root: Tensor
    shape: tuple[int, ...]
    layers: frozenset[str]

    def applied(self, op: Op) -> Samples:
        """Behind a pointwise function."""
        if op.function is None:
            return self
        point = self.units.detach().requires_grad_()
        (slope,) = torch.autograd.grad(op.function(point.clone()).sum(), point)
        return replace(self, units=op.function(self.units.clone()), slopes=self.slopes * slope)

    def normed(self, gain: float, shifts: Tensor, *, fixed: bool) -> Samples:
        """Behind a batch norm; what it takes from the gradients is of order 1 / points.

        Args:
            gain: mean square of its scales.
            shifts: what it adds, ``[samples, 1]``.
            fixed: whether it scales by the gain alone.
        """
        units = gain**0.5 * self.units if fixed else batch_normed_units(self.units, gain)
        scale = units.detach().std(1) / self.units.detach().std(1).clamp_min(1e-12)
        return replace(self, units=units + shifts, slopes=self.slopes * scale[:, None])

    def pooled(self, op: Op, examples: int) -> tuple[Field, Tensor, tuple[int, ...]]:
        """Moments and samples behind a maximum, and the positions there."""
        pool = Maximum(op, self.shape, examples)
        maxima, places = pool.windows(self.units)
        fixed = maxima.detach()
        theta = pool.factored(places, self.slopes, self.root)
        return Field(fixed.T @ fixed / len(fixed), theta, fixed.mean(0)), maxima, pool.shape


def examples_of(traced: TracedModel, maps: Tensor, *, running: bool) -> int:
    """How many examples are looked at: batch norms need several."""
    rules = [rule_for(op) for op in traced.ops]
    batched = not running and any(r is not None and r.name == "batch_norm" for r in rules)
    positions = sizes(traced)
    if positions * (2 if batched else 1) > POINTS:
        raise refused(f"maps of {positions} positions are too large for it")
    if batched and len(maps) < 2:
        raise refused("batch norms need two examples")
    return min(len(maps), POINTS // positions) if batched else 1


def sizes(traced: TracedModel) -> int:
    """Most positions of a map that needs matrices.

    The input needs none, nor does what one layer makes of it up to a maximum.
    """
    layers = {node for layer in traced.layers for node in layer.nodes}
    count, most = 0, 1
    for op in traced.ops:
        if op.target in ("parameter", "constant", "input") or len(op.shape) < 3:
            continue
        count += op.name in layers
        if "max_pool" in op.target and count <= 1:
            most = 1
        most = max(most, prod(op.shape[2:]))
    return most
