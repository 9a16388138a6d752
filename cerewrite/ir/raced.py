"""What a race found: designs trained on a user's data, at equal steps and at equal seconds."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.results import SCHEMA


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: the estimate.
        low, high: its ends; infinite where too few trainings are behind it.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A design at one comparison, over its finals' seeds.

    Attributes:
        steps: optimiser steps it had made.
        seconds: these steps in seconds, by its median step time.
        train: mean training loss.
        loss: mean held-out loss.
        metric: mean held-out accuracy, 0 to 1; None of what is no classifier.
        train_change, loss_change: of the losses against the baseline's on the same seeds: ratios
            where all are positive, else differences.
        metric_change: difference of the accuracies.
        runs: seeds that did not diverge on either side: those that are compared.
    """

    steps: int
    seconds: float
    train: float
    loss: float
    metric: float | None
    train_change: Interval
    loss_change: Interval
    metric_change: Interval | None
    runs: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Means over a design's seeds after so many steps; a point of its curve.

    Attributes:
        steps: optimiser steps.
        seconds: these in seconds, by the median step time.
        train: training loss.
        loss: held-out loss.
    """

    steps: int
    seconds: float
    train: float
    loss: float


@dataclass(frozen=True, slots=True)
class Entrant:
    """One design of a race.

    Attributes:
        name: the baseline, or the row of the menu.
        option: the option of `cerewrite convert` that gives it; "" for the baseline.
        params: parameters.
        step: seconds of one training step, the median of runs in turns.
        rate: learning rate it was left with; None where none was chosen.
        edge: whether that is the least or the largest of several that were tried.
        runs: trainings in the finals.
        failed: those of them that diverged.
        out: why it is not in the finals; "" where it is.
        at_steps: at equal steps, if it is.
        at_seconds: at equal seconds.
        curve: held-out and training loss as it trained.
    """

    name: str
    option: str
    params: int
    step: float
    rate: float | None
    edge: bool
    runs: int
    failed: int
    out: str
    at_steps: Standing | None = None
    at_seconds: Standing | None = None
    curve: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Race:
    """What `cerewrite.race` finds.

    Attributes:
        model: class name of the model.
        optimiser: what trained.
        by: whether the winner is the best at equal ``seconds`` or at equal ``steps``.
        ratios: whether changes of losses are ratios (else differences).
        batch: examples per step; 0 where the data come in batches of their own.
        seconds: asked for.
        spent: seconds that were trained and looked at, all runs of the race together.
        trainings: lanes that were trained, those of the search among them.
        entrants: the baseline first.
        winner: name of the entrant whose held-out loss is below the baseline's beyond the
            interval, the least of them; the baseline where there is none.
        verdict: one sentence on that.
        notes: what else there is to know.
        schema: version of this record.
    """

    model: str
    optimiser: str
    by: str
    ratios: bool
    batch: int
    seconds: float
    spent: float
    trainings: int
    entrants: tuple[Entrant, ...]
    winner: str
    verdict: str
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA
