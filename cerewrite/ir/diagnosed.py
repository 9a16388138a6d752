"""What diagnostics say of a model's trainability, with what each figure is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cerewrite.ir.outcomes import Rejection
from cerewrite.ir.ranges import Amount, ClassName, Cost, Extended, Index, Seed, Text, Word, one_of
from cerewrite.ir.results import SCHEMA
from cerewrite.ir.shown import Shown

DATA = ("given", "gaussian", "shapes")
"""Inputs with values that mean something; Gaussian ones by request; shapes alone."""

DRAWS = 4
"""Draws of the weights where nobody says."""


@dataclass(frozen=True, slots=True)
class LayerFigure:
    """One figure of one layer, mean over the draws.

    Attributes:
        layer: qualified name of its module, or what else the figure is of.
        value: the mean.
        error: its standard error; None where nothing was drawn.
    """

    layer: Text
    value: Extended
    error: Extended | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a diagnostic, mean over the draws.

    Attributes:
        name: what it is.
        value: the mean.
        error: its standard error; None where nothing was drawn.
        layers: the same per layer, where it has a value per layer.
    """

    name: Text
    value: Extended
    error: Extended | None = None
    layers: tuple[LayerFigure, ...] = ()


@dataclass(frozen=True, slots=True)
class Worth:
    """How a figure orders trained designs: a rank correlation, docs/REFEREE.md.

    Attributes:
        figure: name of the figure.
        outcome: ``steps``, ``loss`` or ``error``.
        alone: Spearman's correlation; above 0: designs of which the figure's source expects more
            did better.
        alone_low, alone_high: its 95 % interval.
        given: the same given total width and parameters.
        given_low, given_high: its 95 % interval.
        designs: how many designs are behind it.
    """

    figure: Text
    outcome: Text
    alone: Extended
    alone_low: Extended
    alone_high: Extended
    given: Extended
    given_low: Extended
    given_high: Extended
    designs: Index


@dataclass(frozen=True, slots=True)
class Finding:
    """What one diagnostic found.

    Attributes:
        diagnostic: its registered name.
        title: it in words.
        formula: what was computed.
        source: where it is published.
        caveats: what it leaves out.
        figures: the figures, the first is the headline.
        forward: forward passes of the batch that one draw took, as stated.
        backward: backward passes of the batch that one draw took, as stated.
        seconds: what all draws took here.
        draws: draws behind the figures; 0 where the weights do not enter or stood as they are.
        notes: what is particular to this model.
        worth: how the figures order trained designs.
    """

    diagnostic: Word
    title: Text
    formula: Text
    source: Text
    caveats: tuple[Text, ...]
    figures: tuple[Figure, ...]
    forward: Amount
    backward: Amount
    seconds: Amount
    draws: Index
    notes: tuple[Text, ...] = ()
    worth: tuple[Worth, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis(Shown):
    """What `cerewrite.diagnose` returns.

    Attributes:
        model: class name of the model.
        params: its parameters.
        data: what the inputs were: ``given``, ``gaussian`` or ``shapes``.
        examples: examples in the batch.
        labelled: whether there was a loss.
        draws: draws of the weights; 0 for the weights as they stand.
        seed: of the draws.
        findings: per diagnostic.
        gaps: diagnostics that have no value here, with reason and remedy.
        schema: version of this record.
    """

    model: ClassName
    params: Cost
    data: Annotated[str, one_of(*DATA)]
    examples: Index
    labelled: bool
    draws: Index
    seed: Seed
    findings: tuple[Finding, ...]
    gaps: tuple[Rejection, ...]
    schema: int = SCHEMA

    def __repr__(self) -> str:
        """What was looked at and how much was found, on one line."""
        figures = sum(len(finding.figures) for finding in self.findings)
        return (
            f"Diagnosis({self.model}: {figures} figures of {len(self.findings)} diagnostics, "
            f"{len(self.gaps)} not diagnosed, {self.draws} draws)"
        )

    def value(self, diagnostic: str, figure: str) -> float:
        """One figure; NaN where it was not found."""
        found = (
            item.value
            for finding in self.findings
            if finding.diagnostic == diagnostic
            for item in finding.figures
            if item.name == figure
        )
        return next(found, float("nan"))
