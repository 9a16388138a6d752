"""What is minimised: a measure scores one region's design, and scores add up over regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cerewrite.ir import Site
from cerewrite.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Measure(ABC):
    """A score of a region's design, in two steps because members are independent (THEORY 2).

    `member` looks at one member alone, `score` at ``m`` of them. Both are monotone: a larger
    member value never gives a smaller score, and more members never give a larger one. The
    planner relies on it when it drops dominated members before it multiplies them.

    Attributes:
        name: registered name.
        inverse: whether `score` depends on ``member / multiplicity`` alone; then the planner
            can drop inefficient members early.
    """

    name: ClassVar[str]
    inverse: ClassVar[bool] = False

    @abstractmethod
    def member(self, sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
        """The measure of one member.

        Args:
            sites: the region's sites in execution order.
            widths: widths of one member, ``[designs, classes]``, each at least 1.

        Returns:
            ``[designs]``, finite and at least 0.
        """

    @abstractmethod
    def score(self, member: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
        """The additive score of ``multiplicity`` members; the two arguments are broadcast.

        Returns:
            At least 0; a model's score is the sum over its regions.
        """


MEASURES: Registry[Measure] = Registry("measure", "cerewrite.measures")


def register(measure: type[Measure]) -> type[Measure]:
    """Class decorator: make one instance of a measure known under its name."""
    MEASURES.register(measure.name, measure())
    return measure
