"""What is minimised: a measure scores one region's design, and scores add up over regions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from cerewrite.ir import Design, Measures, Site
from cerewrite.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

T = TypeVar("T")

SHARPEST = 0.1
"""Least factor of a narrow member that draws showed to scatter less than forecast."""

HUGE = 1e300
"""Where figures saturate: deep and narrow members overflow a float (dimensionless)."""


def inverse_widths(sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
    """What sites see of the widths: ``1 / n``, times what draws of narrow members showed beyond it.

    Args:
        sites: the region's sites.
        widths: of one member, ``[designs, classes]``, positive.

    Returns:
        ``[classes, designs]``.
    """
    inverse: FloatArray = 1.0 / np.asarray(widths, dtype=np.float64).T
    found = inverse
    for index, excess, own in {(site.width, site.excess, site.own) for site in sites}:
        if excess:
            found = found.copy()
            factor = 1.0 + excess * (inverse[index] - 1.0 / own)
            found[index] = inverse[index] * np.maximum(factor, SHARPEST)
    return found


class Measure(ABC):
    """A score of a region's design, in two steps: members are independent (docs/theory.md, eq. 5).

    `member` looks at one member alone, `score` at ``m`` of them. Both are monotone: no larger
    part of a member's measure gives a smaller score, and more members never give a larger one.
    The planner relies on it when it drops dominated members before it multiplies them.

    Attributes:
        name: registered name.
        field: the field of `cerewrite.ir.Measures` that holds it.
        title: what reports call it.
    """

    name: ClassVar[str]
    field: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def member(self, sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
        """The measure of one member, in parts.

        Args:
            sites: the region's sites in execution order.
            widths: widths of one member, ``[designs, classes]``, each at least 1.

        Returns:
            ``[designs, parts]``, finite and at least 0. The first part is a sum of monomials in
            the widths' inverses, or nearly so; further parts rise and fall with it.
        """

    @abstractmethod
    def score(self, member: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
        """The additive score of ``multiplicity`` members.

        Args:
            member: ``[..., parts]``.
            multiplicity: broadcast against the leading axes of ``member``, at least 1.

        Returns:
            ``[...]``, at least 0; a model's score is the sum over its regions and what `layer`
            says of its remaining layers.
        """

    def layer(self, kappa: float) -> float:
        """The additive score of a layer in no region, from its correction, at least 0."""
        return math.log1p(kappa)

    def figure(self, score: float) -> float:
        """The measure itself from an additive score, of a region or a whole model."""
        return score

    def additive(self, figure: float) -> float:
        """The score that `figure` has made a measure of."""
        return figure

    def of(self, measures: Measures[T]) -> T:
        """What a record states of this measure."""
        stated: T = getattr(measures, self.field)
        return stated

    def region(self, sites: Sequence[Site], design: Design) -> float:
        """The measure of a region in a design.

        Args:
            sites: the region's sites in execution order.
            design: its members.
        """
        return self.figure(self.region_score(sites, design))

    def region_score(self, sites: Sequence[Site], design: Design) -> float:
        """The additive score of a region in a design; arguments as for `region`."""
        if not sites:
            return 0.0
        row = np.asarray(design.widths, dtype=np.float64)[None, :]
        count = np.asarray([float(design.multiplicity)])
        return float(self.score(self.member(sites, row), count)[0])

    def compose(self, scores: Iterable[float], kappas: Iterable[float]) -> float:
        """The measure of a model from its regions' scores and its remaining layers' kappas."""
        return self.figure(sum(scores) + sum(self.layer(kappa) for kappa in kappas))


def inner_members(sites: Sequence[Site]) -> list[tuple[int, list[Site]]]:
    """Sites that share existing groups inside a member, as if those were all: groups and sites.

    Args:
        sites: a region's sites in execution order.
    """
    found: dict[str, list[Site]] = {}
    for site in sites:
        if site.groups > 1:
            found.setdefault(site.bundle, []).append(site)
    return [(own[0].groups, [replace(y, groups=1) for y in own]) for own in found.values()]


MEASURES: Registry[Measure] = Registry("measure", "cerewrite.planning.measures")

register = MEASURES.instance
