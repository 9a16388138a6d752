"""Who trains next, and how far: successive halving, then finals in rounds. No torch, no clock.

Everything follows from the points that are known, so a race that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

By = Literal["seconds", "steps"]

ROUNDS = 4
"""Equal parts of the finals: after each of them all finalists can be compared."""

FEWEST = 20
"""Optimiser steps of the baseline in the finals below which a race says nothing."""

SEARCH_SEED = 0
"""Seed on which rates and designs are weeded out; the finals' seeds are others."""

FIRST_SEED = 100
"""Seeds of the finals start here: none of them helped to choose a rate or a design."""

MARGIN = 0.9
"""Share of the time that is planned with; checkpoints and noise have the rest."""


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One training: a design, its learning rate and the seed of its weights and batches."""

    design: str
    rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """What to do next: bring a lane to so many steps; ``judged`` on the held-out data there."""

    lane: Lane
    steps: int
    judged: bool


@dataclass(frozen=True, slots=True)
class Point:
    """A lane after so many steps.

    Attributes:
        train: mean training loss over the last tenth of the steps; None where it diverged.
        loss: held-out loss; None where it was not asked for, or diverged.
        metric: held-out accuracy, 0 to 1, of classifiers.
        failed: whether the training loss stopped being finite.
    """

    train: float | None
    loss: float | None = None
    metric: float | None = None
    failed: bool = False


Points = Mapping[tuple[Lane, int], Point]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A race.

    Attributes:
        designs: their names, the baseline first.
        times: seconds of one training step of each.
        rates: learning rates to choose from, per design.
        seeds: trainings of each finalist.
        steps: optimiser steps of the baseline in the finals.
        finalists: designs besides the baseline that reach the finals, at most.
        by: whether designs are weeded out at equal seconds or at equal steps.
    """

    designs: tuple[str, ...]
    times: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: int
    steps: int
    finalists: int
    by: By = "seconds"

    @property
    def rungs(self) -> int:
        """Halvings that leave one rate per design, and no more designs than finalists.

        Example:
            >>> Schedule(("a", "b"), (1.0, 1.0), (0.1, 0.2, 0.4), 3, 100, 1).rungs
            2
        """
        others = max(1, len(self.designs) - 1)
        return max(_halvings(len(self.rates), 1), _halvings(others, max(1, self.finalists)))

    def time(self, design: str) -> float:
        """Seconds of one step of a design."""
        return self.times[self.designs.index(design)]

    def equal_seconds(self, design: str, steps: int) -> int:
        """Steps of a design in the time in which the baseline makes ``steps``, at least 1."""
        return max(1, round(steps * self.times[0] / self.time(design)))

    def rung_steps(self, design: str, rung: int) -> int:
        """How far a design's lanes are brought in a rung."""
        steps = max(1, math.ceil(self.steps / 2 ** (self.rungs - rung)))
        return steps if self.by == "steps" else self.equal_seconds(design, steps)

    def round_steps(self, design: str, turn: int) -> tuple[int, int]:
        """Where a finalist is looked at after round 1, 2, ...: at equal steps, equal seconds."""
        steps = max(1, math.ceil(self.steps * turn / ROUNDS))
        return steps, self.equal_seconds(design, steps)

    def pending(self, points: Points) -> list[Job]:
        """What is to do next, in turns over the designs; nothing once the race is over.

        Args:
            points: all that is known.
        """
        failed = {lane for (lane, _), point in points.items() if point.failed}
        for jobs in self._stages(points):
            left = [j for j in jobs if (j.lane, j.steps) not in points and j.lane not in failed]
            if left:
                return left
        return []

    def alive(self, points: Points) -> dict[str, tuple[float, ...]]:
        """The rates that each design still has after the rungs that are complete.

        A design that diverges at every rate is not among them.
        """
        return self._searched(points)[0]

    def rounds(self, points: Points) -> int:
        """Rounds of the finals that are complete."""
        alive, over = self._searched(points)
        done = 0
        while over and done < ROUNDS and _complete(self._round(alive, done + 1), points):
            done += 1
        return done

    def lanes(self, points: Points) -> set[Lane]:
        """The lanes that may still train: those whose state must be kept."""
        alive, over = self._searched(points)
        if not over:
            return {Lane(d, r, SEARCH_SEED) for d, rates in alive.items() for r in rates}
        return {job.lane for job in self._round(alive, ROUNDS)} if self.pending(points) else set()

    def _searched(self, points: Points) -> tuple[dict[str, tuple[float, ...]], bool]:
        """What is left after the rungs that are complete, and whether all are."""
        rates = dict.fromkeys(self.designs, self.rates)
        for rung in range(self.rungs):
            if not _complete(self._rung(rates, rung), points):
                return rates, False
            rates = self._survivors(rates, rung, points)
        return rates, True

    def _stages(self, points: Points) -> Iterator[list[Job]]:
        """The jobs of every rung and round; a later one is only made once an earlier is done."""
        rates = dict.fromkeys(self.designs, self.rates)
        for rung in range(self.rungs):
            yield self._rung(rates, rung)
            rates = self._survivors(rates, rung, points)
        if len(rates) > 1 and self.designs[0] in rates:
            for turn in range(1, ROUNDS + 1):
                yield self._round(rates, turn)

    def _rung(self, rates: Mapping[str, Sequence[float]], rung: int) -> list[Job]:
        most = max(map(len, rates.values()), default=0)
        return [
            Job(Lane(design, own[index], SEARCH_SEED), self.rung_steps(design, rung), False)
            for index in range(most)
            for design, own in rates.items()
            if index < len(own)
        ]

    def marks(self, design: str, turn: int = ROUNDS) -> list[int]:
        """Steps at which a finalist is looked at up to the end of a round, in order."""
        every = {n for one in range(1, ROUNDS + 1) for n in self.round_steps(design, one)}
        return sorted(n for n in every if n <= max(self.round_steps(design, turn)))

    def _round(self, rates: Mapping[str, Sequence[float]], turn: int) -> list[Job]:
        return [
            Job(Lane(design, own[0], FIRST_SEED + seed), steps, True)
            for seed in range(self.seeds)
            for design, own in rates.items()
            for steps in self.marks(design, turn)
        ]

    def _survivors(
        self, rates: Mapping[str, Sequence[float]], rung: int, points: Points
    ) -> dict[str, tuple[float, ...]]:
        """The better half of each design's rates, then of the designs besides the baseline."""

        def score(design: str, rate: float) -> float:
            at = (Lane(design, rate, SEARCH_SEED), self.rung_steps(design, rung))
            train = points[at].train if at in points else None
            return math.inf if train is None else train

        left: dict[str, tuple[float, ...]] = {}
        best: dict[str, float] = {}
        for design, own in rates.items():
            ranked = sorted((score(design, rate), rate) for rate in own)
            sound = [rate for value, rate in ranked if math.isfinite(value)]
            if sound:
                left[design] = tuple(sorted(sound[: math.ceil(len(own) / 2)]))
                best[design] = ranked[0][0]
        others = sorted((d for d in left if d != self.designs[0]), key=best.__getitem__)
        kept = {self.designs[0], *others[: max(self.finalists, math.ceil(len(others) / 2))]}
        if rung == self.rungs - 1:
            kept = {self.designs[0], *others[: self.finalists]}
        return {design: own for design, own in left.items() if design in kept}


def _complete(jobs: Sequence[Job], points: Points) -> bool:
    failed = {lane for (lane, _), point in points.items() if point.failed}
    return all((job.lane, job.steps) in points or job.lane in failed for job in jobs)


def _halvings(count: int, least: int) -> int:
    found = 0
    while count > least:
        count, found = max(least, math.ceil(count / 2)), found + 1
    return found


def work(schedule: Schedule, evaluation: float) -> tuple[float, float]:
    """What a race costs at most, in seconds: per step of the baseline, and whatever the steps.

    Args:
        schedule: its ``steps`` do not matter.
        evaluation: seconds of one look at the held-out data by the baseline.
    """
    first = schedule.times[0]
    weight = [t if schedule.by == "steps" else first for t in schedule.times]
    dear = sorted(weight[1:], reverse=True)
    per_step, rates, others, before = 0.0, len(schedule.rates), len(dear), 0.0
    for rung in range(schedule.rungs):
        reach = 0.5 ** (schedule.rungs - rung)
        per_step += rates * (weight[0] + math.fsum(dear[:others])) * (reach - before)
        rates, before = math.ceil(rates / 2), reach
        others = min(others, max(schedule.finalists, math.ceil(others / 2)))
    slow = sorted((max(t, first) for t in schedule.times[1:]), reverse=True)
    final = [first, *slow[: schedule.finalists]]
    looks = 2 * ROUNDS * schedule.seeds * evaluation / first
    return per_step + schedule.seeds * math.fsum(final), looks * math.fsum(final)


def fitted(schedule: Schedule, seconds: float, evaluation: float, most: int | None) -> Schedule:
    """The race with as many steps as the time has room for, ``most`` at most.

    Where it has none for all designs, the dearest are left out, down to one and the baseline;
    ``steps`` may still be below `FEWEST` then: the caller says so.

    Args:
        schedule: its ``steps`` do not matter.
        seconds: for the whole race.
        evaluation: see `work`.
        most: steps that were asked for; None for as many as there is time for.
    """
    while True:
        per_step, fixed = work(schedule, evaluation)
        steps = max(0, int((MARGIN * seconds - fixed) / per_step))
        if steps >= FEWEST or len(schedule.designs) <= 2:
            break
        slowest = max(range(1, len(schedule.designs)), key=schedule.times.__getitem__)
        left = [i for i in range(len(schedule.designs)) if i != slowest]
        names = tuple(schedule.designs[i] for i in left)
        schedule = replace(schedule, designs=names, times=tuple(schedule.times[i] for i in left))
    steps = steps if most is None else min(steps, most)
    return replace(schedule, steps=steps)


def needed(schedule: Schedule, evaluation: float) -> float:
    """Seconds that a race of `FEWEST` steps takes."""
    per_step, fixed = work(schedule, evaluation)
    return (per_step * FEWEST + fixed) / MARGIN
