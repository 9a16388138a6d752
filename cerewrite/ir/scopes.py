"""What came of each scope when several were compared."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Cost, Extended, Index, Scope, Text


@dataclass(frozen=True, slots=True)
class ScopeOutcome:
    """One scope's best plan under the same budgets, in figures.

    The baseline's measure depends on the scope, because a region's corrections compose otherwise
    than those of separate layers; ``gain`` compares each plan with its own baseline.

    Attributes:
        scope: ``block``, ``stage`` or ``network``.
        splits: regions that its plan splits.
        params: parameters of its plan.
        flops: FLOPs of its plan, per example.
        before: the plans' measure of the model as it is, composed at this scope.
        after: the measure of its plan.
        gain: primal: ``before / after``; dual: the first budget's cost before over after.
            1 where nothing changes or there is no plan.
        chosen: whether it won.
        refused: why it has no plan, "" if it has one.
    """

    scope: Scope
    splits: Index
    params: Cost
    flops: Cost
    before: Extended
    after: Extended
    gain: Extended
    chosen: bool = False
    refused: Text = ""
