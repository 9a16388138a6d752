"""What is known about a unit over the points of a map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cerewrite.estimators.maps.fields import Field


@dataclass(frozen=True, slots=True)
class Value:
    """A unit over all points.

    Attributes:
        field: its moments.
        units: samples of it, ``[samples, points]``.
        shape: positions of one example.
        layers: the layers that write into it.
        before: behind a pointwise function, the tangent kernel in front of it.
        slopes: there, the function's slopes at the samples.
    """

    field: Field
    units: Tensor
    shape: tuple[int, ...]
    layers: frozenset[str]
    before: Tensor | None = None
    slopes: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a layer writes.

    Attributes:
        units: samples of it, ``[samples, points]``.
        theta: its tangent kernel, or None where only its root is known.
        root: a square root of the kernel, ``[points, rank]``.
    """

    units: Tensor
    theta: Tensor | None = None
    root: Tensor | None = None

    def energy(self, back: Tensor) -> Tensor:
        """The kernel's quadratic form of gradients ``[samples, points]``."""
        if self.root is not None:
            return (back @ self.root).square().sum(1)
        assert self.theta is not None
        return ((back @ self.theta.detach()) * back).sum(1)


@dataclass(frozen=True, slots=True)
class Read:
    """What a layer or a norm reads: samples, who writes them, their moments as read there."""

    units: Tensor
    layers: frozenset[str]
    field: Field
