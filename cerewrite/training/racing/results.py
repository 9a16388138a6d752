"""What the points of a race say: every design against the baseline, and who has won."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from cerewrite.ir.raced import Entrant, Interval, Reading, Standing
from cerewrite.training.racing.intervals import mean_interval, ratio_interval
from cerewrite.training.racing.schedule import FIRST_SEED, Lane, Point, Points, Schedule


@dataclass(frozen=True, slots=True)
class Runner:
    """A design as the caller knows it.

    Attributes:
        name: of the design.
        option: the option that gives it.
        params: parameters.
    """

    name: str
    option: str
    params: int


def entrants(
    schedule: Schedule, points: Points, runners: Mapping[str, Runner]
) -> tuple[tuple[Entrant, ...], bool]:
    """Every design at the last round that all finalists completed; whether changes are ratios.

    Args:
        schedule: the race.
        points: its results.
        runners: all designs, those that the schedule has no time for too.
    """
    alive, turn = schedule.alive(points), schedule.rounds(points)
    finals = list(alive) if turn else []
    table = _Table(schedule, points, {d: rates[0] for d, rates in alive.items()}, turn)
    ratios = table.positive(finals)
    found = []
    for name, runner in runners.items():
        raced = name in schedule.designs
        rate = alive[name][0] if name in finals else None
        tried = len(schedule.rates) > 1
        entrant = Entrant(
            name=name,
            option=runner.option,
            params=runner.params,
            step=schedule.time(name) if raced else math.nan,
            rate=rate,
            edge=tried and rate in (min(schedule.rates), max(schedule.rates)),
            runs=schedule.seeds if name in finals else 0,
            failed=table.failed(name) if name in finals else 0,
            out="" if name in finals else _why(name, schedule, points),
        )
        if name in finals:
            entrant = replace(
                entrant,
                at_steps=table.standing(name, 0, ratios),
                at_seconds=table.standing(name, 1, ratios),
                curve=table.curve(name),
            )
        found.append(entrant)
    return tuple(found), ratios


def winner_of(found: tuple[Entrant, ...], by: str, ratios: bool) -> tuple[str, str]:
    """The winner's name, and a sentence on it.

    A design wins if its held-out loss is below the baseline's beyond the interval, with none of
    its trainings diverged; of several the one of least loss.
    """
    first = found[0]
    null = 1.0 if ratios else 0.0
    where = f"at equal {by}"
    better, rivals = [], []
    for entrant in found[1:]:
        standing = entrant.at_seconds if by == "seconds" else entrant.at_steps
        if standing is not None:
            rivals.append((entrant, standing))
            if not entrant.failed and standing.loss_change.high < null:
                better.append((standing.loss_change.value, entrant, standing))
    if better:
        _, entrant, standing = min(better, key=lambda item: item[0])
        return entrant.name, (
            f"{entrant.name} wins {where}: its held-out loss is "
            f"{written(standing.loss_change, ratios)} the {first.name}'s"
        )
    if not rivals:
        return first.name, f"the {first.name} wins: no other design reached the finals"
    entrant, standing = min(rivals, key=lambda item: _key(item[1]))
    return first.name, (
        f"the {first.name} stays: no design's held-out loss is shown to be lower {where}; the "
        f"least, {entrant.name}'s, is {written(standing.loss_change, ratios)} the {first.name}'s"
    )


def _key(standing: Standing) -> float:
    value = standing.loss_change.value
    return value if math.isfinite(value) else math.inf


def written(change: Interval, ratios: bool) -> str:
    """A change of a loss in words.

    Example:
        >>> written(Interval(0.5, 0.4, 0.6), True), written(Interval(-1.0, -2.0, 0.0), False)
        ('0.500 [0.400, 0.600] times', '-1.000 [-2.000, +0.000] from')
    """
    sign, word = ("", "times") if ratios else ("+", "from")
    value, low, high = (f"{x:{sign}.3f}" for x in (change.value, change.low, change.high))
    return f"{value} [{low}, {high}] {word}"


@dataclass(frozen=True, slots=True)
class _Table:
    """Points of the finals at the last complete round."""

    schedule: Schedule
    points: Points
    rates: Mapping[str, float]
    turn: int

    def at(self, name: str, seed: int, steps: int) -> Point | None:
        """A sound point, if there is one."""
        point = self.points.get((Lane(name, self.rates[name], FIRST_SEED + seed), steps))
        sound = point is not None and not point.failed and point.loss is not None
        return point if sound else None

    def failed(self, name: str) -> int:
        """Trainings that diverged."""
        lanes = {lane for (lane, _), point in self.points.items() if point.failed}
        return sum(lane.design == name and lane.seed >= FIRST_SEED for lane in lanes)

    def positive(self, names: list[str]) -> bool:
        """Whether all losses that are compared are above 0, so that ratios have a meaning."""
        losses = [
            value
            for name in names
            for seed in range(self.schedule.seeds)
            for steps in self.schedule.round_steps(name, self.turn)
            if (point := self.at(name, seed, steps)) is not None
            for value in (point.train, point.loss)
        ]
        return all(value is not None and value > 0 for value in losses)

    def standing(self, name: str, kind: int, ratios: bool) -> Standing:
        """A design at equal steps (kind 0) or equal seconds (kind 1) against the baseline."""
        first = self.schedule.designs[0]
        steps = self.schedule.round_steps(name, self.turn)[kind]
        level = self.schedule.round_steps(first, self.turn)[kind]
        pairs = [
            (own, other)
            for seed in range(self.schedule.seeds)
            if (own := self.at(name, seed, steps)) is not None
            and (other := self.at(first, seed, level)) is not None
        ]

        def column(side: int, what: str) -> list[float]:
            values = [getattr(pair[side], what) for pair in pairs]
            return [float(value) for value in values if value is not None]

        def change(what: str) -> Interval:
            own, other = column(0, what), column(1, what)
            found = ratio_interval(own, other) if ratios and pairs else None
            if found is not None:
                return found
            return mean_interval([a - b for a, b in zip(own, other, strict=True)])

        metric = column(0, "metric")
        return Standing(
            steps=steps,
            seconds=steps * self.schedule.time(name),
            train=_mean(column(0, "train")),
            loss=_mean(column(0, "loss")),
            metric=_mean(metric) if metric else None,
            train_change=change("train"),
            loss_change=change("loss"),
            metric_change=mean_interval(
                [a - b for a, b in zip(metric, column(1, "metric"), strict=True)]
            )
            if metric
            else None,
            runs=len(pairs),
        )

    def curve(self, name: str) -> tuple[Reading, ...]:
        """Means over the seeds wherever all of them that did not diverge were looked at."""
        found = []
        for steps in self.schedule.marks(name, max(self.turn, 1)):
            sound = [
                point
                for seed in range(self.schedule.seeds)
                if (point := self.at(name, seed, steps)) is not None
            ]
            if sound:
                train = _mean([point.train for point in sound if point.train is not None])
                loss = _mean([point.loss for point in sound if point.loss is not None])
                found.append(Reading(steps, steps * self.schedule.time(name), train, loss))
        return tuple(found)


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _why(name: str, schedule: Schedule, points: Points) -> str:
    if name not in schedule.designs:
        return "left out: no time for it"
    lanes = {lane for (lane, _), point in points.items() if point.failed and lane.design == name}
    if len({lane.rate for lane in lanes}) == len(schedule.rates):
        return "diverges at every rate"
    return "weeded out in the search"
