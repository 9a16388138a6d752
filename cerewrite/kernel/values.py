"""What travels along the graph, and how values join (docs/theory.md, section 5)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cerewrite.errors import AnalysisError, ZeroKernelError
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.units import GaussianTerm, Unit, make_unit

_THIN = 1e-4
"""Shares of a value below which a kind of units is left out."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What a layer reads.

    Attributes:
        q: mean square per unit, a float64 vector: one element, or one per draw of the noise.
        kernel: the tangent kernel's diagonal per unit (T in docs/theory.md, section 5), likewise.
        common: the part of the mean square, not in q, that all examples of a batch have in
            common: told apart in models with batch norms, else 0.
        fresh: what the noise read here makes of q, relative.
        overlap: root mean square of the correlation of two examples, what all have in common
            left out.
    """

    q: Tensor
    kernel: Tensor
    common: Tensor
    fresh: Tensor
    overlap: float = 0.0

    @property
    def square(self) -> Tensor:
        """The whole mean square."""
        return self.q + self.common


@dataclass(frozen=True, slots=True)
class Part:
    """Units of one kind within a value.

    Attributes:
        unit: one of them.
        weight: their share of the value's elements; the shares of a value's parts sum to 1.
    """

    unit: Unit
    weight: float


@dataclass(frozen=True, slots=True)
class Moments:
    """One value.

    Attributes:
        parts: its kinds of units; several behind a concatenation.
        constant: whether nothing computed from an input is in it.
    """

    parts: tuple[Part, ...]
    constant: bool = False


def scalar(value: float) -> Tensor:
    """A float64 vector of one element."""
    return torch.tensor([value], dtype=torch.float64)


def gaussian_value(
    q: Tensor, kernel: Tensor, *, constant: bool = False, overlap: float = 0.0
) -> Moments:
    """A value of which only mean square and kernel are known: Gaussian, drawn by no layer."""
    square = max(nominal_value(q), 0.0)
    term = GaussianTerm("", 0.0, square**0.5, 0.0, 1.0, q, kernel, overlap=overlap)
    return Moments((Part(make_unit("term", term=term), 1.0),), constant=constant)


def add(first: Moments, second: Moments) -> Moments:
    """The sum of two values, unit by unit."""
    return _join("add", first, second)


def multiply(first: Moments, second: Moments) -> Moments:
    """The product of two values: kernels join by Hadamard product (docs/theory.md, section 5)."""
    first, second = (_fixed(x) if x.constant else x for x in (first, second))
    return _join("multiply", first, second)


def concatenate(parts: list[tuple[int, Moments]], *, merged: bool = True) -> Moments:
    """Values side by side, each with its number of elements.

    Neighbours of one kind are one part if they are ``merged``; kinds of fewer than one element in
    10,000 are left out: tokens that are cut off and put back in every block would make new ones
    without end.
    """
    count = sum(size for size, _ in parts)
    joined: list[Part] = []
    for size, x in parts:
        for part in x.parts:
            share = part.weight * size / count
            if merged and joined and joined[-1].unit is part.unit:
                share += joined.pop().weight
            joined.append(Part(part.unit, share))
    kept = [part for part in joined if part.weight >= _THIN]
    whole = sum(part.weight for part in kept)
    return Moments(tuple(Part(part.unit, part.weight / whole) for part in kept))


def pick(x: Moments, share: float) -> Moments:
    """A piece of a value's units, cut along the channels: other units than those of other pieces.

    Args:
        x: the value.
        share: the piece's share of the units.
    """
    return Moments(tuple(Part(_renamed(p.unit, {}, share), p.weight) for p in x.parts))


def slices(x: Moments, count: int) -> list[Moments]:
    """A value's units in equal slices, one after another: other units in each."""
    slices_of_value, parts = [], list(x.parts)
    for index in range(count):
        low, high = index / count, (index + 1) / count
        inner = [end for end in _ends(parts) if low + _THIN < end < high - _THIN]
        ends = [low, *inner, high]
        pieces = itertools.pairwise(ends)
        units = (Part(_piece(parts, a, b), (b - a) * count) for a, b in pieces)
        slices_of_value.append(Moments(tuple(units), constant=x.constant))
    return slices_of_value


def cut(x: Moments, low: float, high: float) -> Moments:
    """The units between two shares of a value: kinds as they stand, one cut through in part.

    A value of one kind passes as it is.

    Args:
        x: the value.
        low: where the piece starts, as a share of the value's units.
        high: where it ends.
    """
    if len(x.parts) == 1:
        return x
    start, inside = 0.0, []
    for part, end in zip(x.parts, _ends(list(x.parts)), strict=True):
        shared = min(high, end) - max(low, start)
        if shared >= _THIN:
            is_whole = part.weight - shared < _THIN
            unit = part.unit if is_whole else _renamed(part.unit, {}, shared / part.weight)
            inside.append(Part(unit, shared))
        start = end
    whole = sum(part.weight for part in inside)
    return Moments(tuple(Part(part.unit, part.weight / whole) for part in inside), x.constant)


def _fixed(x: Moments) -> Moments:
    """A factor that no input reaches, as a number: its root mean square."""
    parts = []
    for part in x.parts:
        term = part.unit.term
        if term is not None:
            flat = GaussianTerm("", term.deviation, 0.0, 0.0, 1.0, term.q, term.kernel)
            parts.append(Part(make_unit("term", term=flat), part.weight))
        else:
            parts.append(part)
    return Moments(tuple(parts), constant=True)


def _join(kind: str, first: Moments, second: Moments) -> Moments:
    """Unit by unit; where one operand has fewer kinds of units, its kinds are cut to fit."""
    constant = first.constant and second.constant
    parts = [
        Part(make_unit(kind, a, b), weight)
        for a, b, weight in _aligned(list(first.parts), list(second.parts))
    ]
    return Moments(tuple(parts), constant=constant)


def _aligned(first: list[Part], second: list[Part]) -> list[tuple[Unit, Unit, float]]:
    """Units that meet, and their share; a kind that meets several others becomes several.

    Ends that differ by less than `_THIN` are one.
    """
    if len(first) == len(second) == 1:
        return [(first[0].unit, second[0].unit, 1.0)]
    pairs = []
    low = 0.0
    for high in sorted({*_ends(first), *_ends(second)}):
        if high - low < _THIN:
            continue
        pair = [_piece(parts, low, high) for parts in (first, second)]
        pairs.append((pair[0], pair[1], high - low))
        low = high
    return pairs


def _ends(parts: list[Part]) -> list[float]:
    total, ends = 0.0, []
    for part in parts:
        total += part.weight
        ends.append(total)
    return [*ends[:-1], 1.0]


def _piece(parts: list[Part], low: float, high: float) -> Unit:
    """The units between two shares of a value: the whole kind, or a part of it."""
    start, largest, kind = 0.0, 0.0, parts[0]
    for part, end in zip(parts, _ends(parts), strict=True):
        shared = min(high, end) - max(low, start)
        if shared > largest:
            largest, kind = shared, part
        start = end
    share = (high - low) / kind.weight
    return kind.unit if share > 1 - 1e-6 else _renamed(kind.unit, {}, share)


def _renamed(
    unit: Unit, done: dict[Unit | GaussianTerm, Unit | GaussianTerm], share: float
) -> Unit:
    """The same function of other units: terms of the same layers, independent of the first."""
    known = done.get(unit)
    if isinstance(known, Unit):
        return known
    term = unit.term
    if term is not None and term.deviation > 0:
        term = replace(term, units=term.units * share, share=term.share * share)
    inputs = (_renamed(u, done, share) for u in unit.inputs)
    renamed = make_unit(
        unit.kind, *inputs, function=unit.function, key=unit.key, term=term, norm=unit.norm
    )
    done[unit] = renamed
    return renamed


def signal_range_error(value: float, where: Any) -> AnalysisError:
    """The error for a mean square that is zero or infinite."""
    message = f"the mean square reaches {value:g} before {where or 'a layer'}"
    if value == 0:
        return ZeroKernelError(message, advice=ZeroKernelError.ADVICE)
    return AnalysisError(
        message, advice="the signal dies or explodes at this initialisation: try --gain he"
    )
