"""What a diagnostic is: a formula with its cost, its caveats and its source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cerewrite.errors import AnalysisError
from cerewrite.registry import Registry

if TYPE_CHECKING:
    from cerewrite.diagnostics.material import Material


class NotApplicableError(AnalysisError):
    """A diagnostic has no value for this model or these inputs: a stated gap."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What a diagnostic costs, in passes of the whole batch, at most.

    Attributes:
        forward: forward passes.
        backward: backward passes with gradients of all parameters, each about two forward ones.
    """

    forward: float = 0.0
    backward: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One draw's figures.

    Attributes:
        figures: by name, the headline first.
        layers: by figure, by layer.
        notes: what is particular to this model.
    """

    figures: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Diagnostic(ABC):
    """A quantity that predicts, or claims to predict, how a network trains.

    Attributes:
        name: registered name.
        title: it in words.
        formula: what is computed, every symbol named.
        source: paper, or section of docs/theory.md.
        caveats: what it leaves out, one sentence each.
        needs: ``structure`` (the trace and the weights), ``inputs`` (their values too) or
            ``targets`` (a loss as well).
        least: fewest examples.
        drawn: whether the weights enter, so that draws of them differ.
        higher_is_better: figures of which the source claims that more is better; of the others
            less is taken to be.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    caveats: ClassVar[tuple[str, ...]]
    needs: ClassVar[str] = "targets"
    least: ClassVar[int] = 1
    drawn: ClassVar[bool] = True
    higher_is_better: ClassVar[frozenset[str]] = frozenset()

    def cost(self, material: Material) -> Passes:
        """What `read` costs, at most; no pass where it is pure numbers."""
        return Passes()

    @abstractmethod
    def read(self, material: Material) -> Reading:
        """The figures on the weights as they stand.

        Raises:
            NotApplicableError: if it has no value for this model.
        """


DIAGNOSTICS: Registry[Diagnostic] = Registry("diagnostic", "cerewrite.diagnostics")

register = DIAGNOSTICS.instance
