"""Analyses and plans: one frozen value per arrow of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from cerewrite.ir.design import Design, Designed
from cerewrite.ir.exits import EXIT_SCALES
from cerewrite.ir.measured import (
    Estimate,
    LayerEstimate,
    Measured,
    Measures,
    ModuleSummary,
    RegionEstimate,
)
from cerewrite.ir.menu import MenuRow
from cerewrite.ir.outcomes import Rejection
from cerewrite.ir.ranges import (
    Amount,
    AnyScope,
    ClassName,
    Cost,
    Extended,
    Finite,
    Hexadecimal,
    Index,
    Note,
    Scope,
    Seed,
    Size,
    Source,
    Text,
    Word,
    one_of,
)
from cerewrite.ir.regions import Region
from cerewrite.ir.scopes import ScopeOutcome
from cerewrite.ir.shown import Shown

SCHEMA = 1
Schema = Annotated[int, Meta(ge=1, le=SCHEMA)]
WEIGHT_SOURCES = ("reinitialise", "transfer")
"""Where the members' weights may come from."""


@dataclass(frozen=True, slots=True)
class ScopeFindings(Measured[Estimate]):
    """What an analysis found at one of several scopes.

    Attributes:
        scope: ``block``, ``stage`` or ``network``.
        measures: the model's, composed of this scope's regions where they are not measured.
        regions: per region, in execution order.
        rejections: what was refused, with reasons.
        members: existing groups outside of all regions, which no plan changes.
    """

    scope: Scope
    measures: Measures[Estimate]
    regions: tuple[RegionEstimate, ...]
    rejections: tuple[Rejection, ...]
    members: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis(Measured[Estimate], Shown):
    """What `cerewrite.analyze` returns.

    Attributes:
        model: class name of the model.
        fingerprint: hash of the model's structure.
        estimator: registered estimator.
        parametrization: ``ntk`` or ``standard``.
        gain: ``as-built``, ``nonzero``, ``he`` or a number: the initialisation that was assumed.
        scope: the scope the regions were found at; ``auto`` for all, with the regions of the first.
        measures: of the tangent kernel's diagonal, with their errors.
        layers: per sampled layer, in execution order.
        regions: per region, in execution order.
        rejections: what was refused, with reasons.
        params: parameters of the model.
        flops: FLOPs per example.
        frontend: tracer that produced the graph.
        assumptions: what the figures rest on, one sentence each.
        schema: version of this record.
        latency: nanoseconds per forward call as measured; 0 where nobody asked.
        scopes: for ``auto``, what was found at every scope.
        memory: bytes of training, see `cerewrite.planning.budgets.memory`; 0 where nobody asked.
        inputs: shapes of the example inputs, as ``--input`` takes them; empty where they cannot
            be drawn again.
        members: existing groups outside of all regions: members that no plan changes.
        step: nanoseconds per training step as measured; 0 where nobody asked.
        digits: significant digits that the figures have where nothing was measured.
        modules: every module that holds parameters or ran operators, as the model lists them.
        untied: parameters and modules that were given values of their own first, on request.
    """

    model: ClassName
    fingerprint: Hexadecimal
    estimator: Word
    parametrization: Annotated[str, one_of("ntk", "standard")]
    gain: Text
    scope: AnyScope
    measures: Measures[Estimate]
    layers: tuple[LayerEstimate, ...]
    regions: tuple[RegionEstimate, ...]
    rejections: tuple[Rejection, ...]
    params: Cost
    flops: Cost
    frontend: Word
    assumptions: tuple[Text, ...]
    schema: Schema = SCHEMA
    latency: Cost = 0
    scopes: tuple[ScopeFindings, ...] = ()
    memory: Cost = 0
    inputs: tuple[Text, ...] = ()
    members: tuple[Region, ...] = ()
    step: Cost = 0
    digits: Size = 4
    untied: tuple[Text, ...] = ()
    modules: tuple[ModuleSummary, ...] = ()

    def __repr__(self) -> str:
        """What it is of and what it found, on one line; `dumps` writes it whole."""
        nu = self.nu
        error = "" if nu.stderr is None else f" +- {nu.stderr:.2g}"
        return (
            f"Analysis({self.model}: {len(self.layers)} layers, {len(self.regions)} regions at "
            f"scope {self.scope}, nu {nu.value:.4g}{error} by {self.estimator})"
        )

    def at_scope(self, scope: str) -> Analysis:
        """The analysis at one of the scopes that an ``auto`` analysis covers."""
        findings = next(item for item in self.scopes if item.scope == scope)
        owner = {site.layer: item.name for item in findings.regions for site in item.region.sites}
        return replace(
            self,
            scope=scope,
            measures=findings.measures,
            layers=tuple(replace(y, region=owner.get(y.name)) for y in self.layers),
            regions=findings.regions,
            rejections=findings.rejections,
            members=findings.members,
            scopes=(),
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit on one cost.

    Attributes:
        cost: registered budget (``params``, ``flops``).
        limit: the limit, in the cost's own unit.
        text: the request as the user wrote it.
        before: the original model's cost, where `Figures` does not state it; 0 otherwise.
        held: whether nobody named it: the cost is held because every cost is.
        target: what the search kept below, where timing what was built asked for less than the
            limit; 0 for the limit itself.
    """

    cost: Word
    limit: Amount
    text: Text
    before: Cost = 0
    held: bool = False
    target: Amount = 0.0

    @property
    def aim(self) -> float:
        """What the search keeps below."""
        return self.target or self.limit


@dataclass(frozen=True, slots=True)
class Figures(Measured[float]):
    """A whole model's costs and measures."""

    params: Cost
    flops: Cost
    measures: Measures[Amount]


@dataclass(frozen=True, slots=True)
class Split(Designed, Measured[float]):
    """What becomes of one region.

    Attributes:
        region: name of the region.
        design: its members and their widths.
        params: parameters of the region's layers and modules after the split.
        flops: FLOPs of the region after the split, per example.
        measures: of the region after the split.
        note: a comment; ignored by the program.
    """

    region: Text
    design: Design
    params: Cost
    flops: Cost
    measures: Measures[Amount]
    note: Note = ""


@dataclass(frozen=True, slots=True)
class Plan(Shown):
    """What `cerewrite.plan` returns: pure numbers, no tensors.

    Attributes:
        model: class name of the model it belongs to.
        fingerprint: hash of that model's structure.
        objective: ``primal`` or ``dual``.
        measure: registered measure that is made small, or kept in the dual.
        budgets: the limits that were asked for.
        scope: scope of the regions.
        splits: one per region that changes.
        baseline: costs and measures before.
        planned: costs and measures after.
        feasible: per budget, the least and largest cost that any design reaches.
        considered: designs looked at.
        gap: relative optimality gap of the allocation: an upper bound, from the Lagrangian.
        regions: the regions' structure, which `apply` follows.
        rejections: what was refused, with reasons.
        seed: seed of the new members' initialisation.
        init: how the members' weights are drawn: a registered initialiser, or ``module:name`` of
            a user's function, which `apply` must be given again.
        exit_scale: where the ``1 / sqrt(m)`` of the members' sum goes: ``folded`` into the exits'
            weights, or ``explicit``, a multiplier of the exits; or ``mean``, a multiplier ``1 / m``
            with which every member's output has a network's own scale at initialisation.
        weights: where the members' weights come from: ``reinitialise`` (drawn) or ``transfer``
            (the original's own, which are then part of what makes the result).
        schema: version of this record.
        note: a comment; ignored by the program.
        renamed: old and new name of every parameter of a module that the plan swaps, "" for one
            that is gone; written when a plan is carried out, and ignored when it is read.
        scopes: how the scopes compared, if they were.
        inputs: shapes of the analysis's example inputs, from which a later export draws its own.
        source: the original's factory, a file's path relative to the plan's folder; "" where the
            original came from Python. See `cerewrite.output.factory` for when it is run.
        originals: the original model's costs that `Figures` does not state and that are known:
            ``memory`` and ``step``.
        menu: what the user could choose between, as forecast, if a menu was made.
        untied: parameters and modules that are given values of their own before the rewrite.
        member_widths: ``proportional`` (the widths of a member are one scale of the original's)
            or ``free``.
        estimator: registered estimator behind the figures.
        draws: draws behind them; given as ``draws`` they make the same figures again.
        parametrization: of the analysis.
        gain: of the analysis.
    """

    model: ClassName
    fingerprint: Hexadecimal
    objective: Annotated[str, one_of("primal", "dual")]
    measure: Word
    budgets: tuple[Budget, ...]
    scope: Scope
    splits: tuple[Split, ...]
    baseline: Figures
    planned: Figures
    feasible: tuple[tuple[Word, Finite, Finite], ...]
    considered: Cost
    gap: Extended
    regions: tuple[Region, ...]
    rejections: tuple[Rejection, ...]
    seed: Seed
    init: Word = "gain"
    exit_scale: Annotated[str, one_of(*EXIT_SCALES)] = "folded"
    weights: Annotated[str, one_of(*WEIGHT_SOURCES)] = "reinitialise"
    schema: Schema = SCHEMA
    note: Note = ""
    renamed: tuple[tuple[Text, Text], ...] = ()
    scopes: tuple[ScopeOutcome, ...] = ()
    inputs: tuple[Text, ...] = ()
    source: Source = ""
    originals: tuple[tuple[Word, Cost], ...] = ()
    member_widths: Annotated[str, one_of("proportional", "free")] = "proportional"
    untied: tuple[Text, ...] = ()
    estimator: Word = ""
    draws: Index = 0
    parametrization: Annotated[str, one_of("ntk", "standard")] = "ntk"
    gain: Text = "as-built"
    menu: tuple[MenuRow, ...] = ()

    def __repr__(self) -> str:
        """What it changes, on one line; `dumps` writes it whole."""
        old, new = self.baseline, self.planned
        return (
            f"Plan({self.model}: {len(self.splits)} regions split at scope {self.scope}, params "
            f"{old.params:,} -> {new.params:,}, nu {old.nu:.4g} -> {new.nu:.4g})"
        )
