"""The two numbers that travel along the graph, and how values join (THEORY 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fresh:
    """A layer's fluctuation that no nonlinearity has read yet.

    Attributes:
        layer: name of the sampled layer.
        share: its share of the value's mean square, in (0, 1].
        fixed: Hermite orders of the units' distribution that a norm holds still.
        units: the share of the value's mean square on the units that it writes, and of its
            kernel; below 1 behind a concatenation.
        beside: fresh shares of all layers on these units; None until a concatenation.
    """

    layer: str
    share: float
    fixed: tuple[int, ...] = ()
    units: tuple[float, float] = (1.0, 1.0)
    beside: float | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean square and tangent kernel of one value.

    Attributes:
        q: mean square per unit, a float64 scalar.
        kernel: the tangent kernel's diagonal per unit (T in THEORY 5), likewise.
        fresh: fluctuations of sampled layers not yet read by a nonlinearity.
        pooled: whether its scale is that of a batch, not of the example: behind a batch norm.
    """

    q: Tensor
    kernel: Tensor
    fresh: tuple[Fresh, ...] = ()
    pooled: bool = False


def scalar(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(value, dtype=torch.float64)


def add(first: Moments, second: Moments) -> Moments:
    """The sum of two values whose weights are independent; shares of the fresh parts shrink."""
    q = first.q + second.q
    total = float(q.detach())

    def diluted(x: Moments) -> tuple[Fresh, ...]:
        part = float(x.q.detach()) / total if total else 0.0
        return tuple(replace(fresh, share=fresh.share * part) for fresh in x.fresh)

    return Moments(q, first.kernel + second.kernel, diluted(first) + diluted(second))


def concatenate(parts: list[tuple[int, Moments]]) -> Moments:
    """Values side by side: means weighted by elements; fluctuations wait for their reader."""
    count = sum(size for size, _ in parts)
    q = torch.stack([size / count * x.q for size, x in parts]).sum()
    kernel = torch.stack([size / count * x.kernel for size, x in parts]).sum()
    fresh: list[Fresh] = []
    for size, x in parts:
        on = tuple(
            float(own.detach()) * size / count / max(float(all_.detach()), 1e-300)
            for own, all_ in ((x.q, q), (x.kernel, kernel))
        )
        here = sum(f.share for f in x.fresh if f.beside is None)
        for f in x.fresh:
            beside = here if f.beside is None else f.beside
            units = (f.units[0] * on[0], f.units[1] * on[1])
            fresh.append(replace(f, units=units, beside=beside))
    return Moments(q, kernel, tuple(fresh))


def multiply(first: Moments, second: Moments) -> Moments:
    """The product of two independent values: kernels join by Hadamard product (THEORY 5)."""
    return Moments(first.q * second.q, first.kernel * second.q + first.q * second.kernel)
