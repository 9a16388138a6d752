"""What a plan may be expected to gain in training, from every design that the studies trained."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

from cerewrite.ir import Plan

WIDE = 0.05
"""Var[log K] below which no baseline was trained: the kernel hardly depends on the draw. At 0.054
designs still fitted digits in fewer steps (docs/RACE.md), so that this is no threshold of gains."""

LARGEST = 0.97
"""Share of the baseline's Var[log K] up to which designs were counted as plans that gain."""

PARAMS = (0.9, 1.02)
"""Parameters over the baseline's of the designs that were trained."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Trainings of baselines whose Var[log K] lies between two ends.

    Attributes:
        low, high: these ends; None: none.
        ratio: steps to a training loss over the baseline's, geometric mean.
        ends: of its 95 % interval, by a bootstrap over baselines, designs and seeds.
        baselines: networks behind it.
        designs: designs of these, each with SGD and Adam.
        trainings: of designs and baselines, at the rate that was best for each.
    """

    low: float
    high: float | None
    ratio: float
    ends: tuple[float, float]
    baselines: int
    designs: int
    trainings: int


@functools.cache
def gains() -> tuple[Gain, ...]:
    """The table of the package, which `python -m benchmarks.training gains` writes.

    Example:
        >>> [row.high for row in gains()]
        [0.25, 1.1, None]
    """
    text = resources.files("cerewrite.planning").joinpath("gains.json").read_text("utf-8")
    return tuple(Gain(**{**row, "ends": tuple(row["ends"])}) for row in json.loads(text))


def is_wide(plan: Plan) -> bool:
    """Whether the original is wider than any that was trained: no gain is to be expected."""
    return plan.baseline.measures.log_variance < WIDE


def expected_gain(plan: Plan) -> Gain | None:
    """The row of a plan; None where nothing like it was trained.

    That is where the original's Var[log K] is below `WIDE`, or the plan's is hardly smaller, or
    its parameters are not about the original's.

    Args:
        plan: a plan that changes something.
    """
    before, after = plan.baseline.measures.log_variance, plan.planned.measures.log_variance
    share = plan.planned.params / max(plan.baseline.params, 1)
    if is_wide(plan) or not after <= LARGEST * before or not PARAMS[0] <= share <= PARAMS[1]:
        return None
    inside = (row for row in gains() if row.low <= before and (not row.high or before < row.high))
    return next(inside, None)
