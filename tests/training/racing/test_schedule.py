"""Who trains next in a race: pure, so a made-up world of losses is enough."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import pytest

from cerewrite.training.racing.schedule import (
    FEWEST,
    FIRST_SEED,
    MARGIN,
    ROUNDS,
    SEARCH_SEED,
    By,
    Job,
    Lane,
    Point,
    Schedule,
    fitted,
    needed,
    work,
)

World = Callable[[Lane, int], Point]


def schedule(designs: int = 5, rates: int = 4, by: By = "seconds", finalists: int = 2) -> Schedule:
    names = ("baseline", *(f"d{i}" for i in range(1, designs)))
    times = (1.0, *(0.5 * i for i in range(1, designs)))
    return Schedule(names, times, tuple(0.1 * 2.0**i for i in range(rates)), 3, 64, finalists, by)


def world(lane: Lane, steps: int) -> Point:
    """Loss falls with steps; every design is best at a rate of 0.2, later designs are better."""
    index = 0 if lane.design == "baseline" else int(lane.design[1:])
    loss = (2.0 - 0.1 * index) / math.sqrt(steps) * (1 + abs(math.log(lane.rate / 0.2)))
    return Point(loss, loss)


def run(
    race: Schedule, found: World = world, limit: int = 10_000
) -> tuple[dict[tuple[Lane, int], Point], list[Job]]:
    points: dict[tuple[Lane, int], Point] = {}
    done: list[Job] = []
    while len(done) < limit and (jobs := race.pending(points)):
        job = jobs[0]
        done.append(job)
        points[job.lane, job.steps] = found(job.lane, job.steps)
    return points, done


@pytest.mark.parametrize("by", ["seconds", "steps"])
@pytest.mark.parametrize(("designs", "rates", "finalists"), [(2, 1, 1), (3, 3, 1), (6, 4, 2)])
def test_a_race_ends_with_all_finalists_trained(
    by: By, designs: int, rates: int, finalists: int
) -> None:
    race = schedule(designs, rates, by, finalists)
    points, done = run(race)
    alive = race.alive(points)
    assert len(alive) == min(designs, 1 + finalists) and "baseline" in alive
    assert all(len(left) == 1 for left in alive.values())
    assert race.rounds(points) == ROUNDS and race.lanes(points) == set()
    finals = {lane for lane, _ in points if lane.seed >= FIRST_SEED}
    assert finals == {
        Lane(d, left[0], FIRST_SEED + s) for d, left in alive.items() for s in range(3)
    }
    assert len(done) == len(set(done))


def test_the_best_rate_and_the_best_designs_are_left() -> None:
    race = schedule(6, 4, "steps")
    points, _ = run(race)
    assert race.alive(points) == {"baseline": (0.2,), "d4": (0.2,), "d5": (0.2,)}


def test_lanes_only_ever_go_forward() -> None:
    """A lane's state is that of its last point, so no job may lie behind one that is done."""
    race = dataclasses.replace(schedule(5, 4), times=(1.0, 0.3, 0.9, 1.1, 7.0))
    _, done = run(race)
    reached: dict[Lane, int] = {}
    for job in done:
        assert job.steps > reached.get(job.lane, 0)
        reached[job.lane] = job.steps


def test_what_is_next_depends_on_the_points_alone() -> None:
    """A race that is killed anywhere goes on with the same jobs."""
    race = schedule()
    whole, done = run(race)
    for cut in range(0, len(done), 5):
        points = {(job.lane, job.steps): world(job.lane, job.steps) for job in done[:cut]}
        rest = []
        while jobs := race.pending(points):
            rest.append(jobs[0])
            points[jobs[0].lane, jobs[0].steps] = world(jobs[0].lane, jobs[0].steps)
        assert rest == done[cut:] and points == whole


def test_designs_take_turns() -> None:
    race = schedule(4, 4)
    _, done = run(race, limit=16)
    assert {job.lane.design for job in done[:4]} == {"baseline", "d1", "d2", "d3"}
    assert [job.lane.design for job in done[:4]] == [job.lane.design for job in done[4:8]]


def test_equal_seconds_are_steps_by_the_step_time() -> None:
    race = schedule(4)
    assert race.equal_seconds("d1", 64) == 128 and race.equal_seconds("d3", 64) == 43
    assert race.round_steps("d1", ROUNDS) == (64, 128)
    assert race.rung_steps("d3", 0) * 1.5 == pytest.approx(race.rung_steps("baseline", 0), abs=1)


def test_what_diverges_is_left_out_and_not_trained_again() -> None:
    def wild(lane: Lane, steps: int) -> Point:
        if lane.rate > 0.5 or lane.design == "d1":
            return Point(None, failed=True)
        return world(lane, steps)

    race = schedule(4, 4)
    points, done = run(race, wild)
    assert "d1" not in race.alive(points)
    lanes = [job.lane for job in done if job.lane.design == "d1"]
    assert len(lanes) == len(set(lanes)) == 4
    assert all(left == (0.2,) for left in race.alive(points).values())


def test_a_baseline_that_diverges_everywhere_ends_the_race() -> None:
    race = schedule(3, 2)
    points, _ = run(race, lambda lane, steps: Point(None, failed=lane.design == "baseline")
                    if lane.design == "baseline" else world(lane, steps))  # fmt: skip
    assert "baseline" not in race.alive(points) and race.rounds(points) == 0


def test_a_seed_that_diverges_in_the_finals_does_not_stop_them() -> None:
    def unlucky(lane: Lane, steps: int) -> Point:
        if lane.design != "baseline" and lane.seed == FIRST_SEED + 1:
            return Point(None, failed=True)
        return world(lane, steps)

    points, _ = run(schedule(), unlucky)
    assert schedule().rounds(points) == ROUNDS


@pytest.mark.parametrize("by", ["seconds", "steps"])
def test_no_race_costs_more_than_it_was_fitted_to(by: By) -> None:
    draw = random.Random(0)
    for _ in range(8):
        times = tuple(draw.uniform(0.2, 4.0) for _ in range(draw.randint(2, 7)))
        names = ("baseline", *(f"d{i}" for i in range(1, len(times))))
        rates = tuple(0.1 * 2.0**i for i in range(draw.randint(1, 5)))
        wished = Schedule(names, times, rates, draw.randint(2, 6), 0, draw.randint(1, 3), by)
        look = draw.uniform(0, 2)
        race = fitted(wished, 20_000.0, look, None)
        _, done = run(race)
        reached: dict[Lane, int] = {}
        spent = 0.0
        for job in done:
            spent += (job.steps - reached.get(job.lane, 0)) * race.time(job.lane.design)
            spent += look * race.time(job.lane.design) / race.times[0] if job.judged else 0.0
            reached[job.lane] = job.steps
        per_step, _ = work(race, look)
        rounding = sum(race.time(lane.design) for lane in reached) * ROUNDS
        assert spent <= MARGIN * 20_000.0 + rounding
        assert race.steps >= FEWEST and per_step > 0


def test_without_time_the_dearest_designs_are_left_out_down_to_one() -> None:
    wished = dataclasses.replace(schedule(5, 4), steps=0)
    enough = needed(wished, 0.0)
    assert fitted(wished, 1.01 * enough, 0.0, None).designs == wished.designs
    fewer = fitted(wished, 0.7 * enough, 0.0, None)
    assert fewer.designs == ("baseline", "d1", "d2", "d3")[: len(fewer.designs)]
    short = fitted(wished, 1.0, 0.0, None)
    assert short.designs == ("baseline", "d1") and short.steps < FEWEST


def test_steps_that_were_asked_for_are_an_upper_end() -> None:
    assert fitted(schedule(), 1e9, 0.0, 50).steps == 50
    assert all(lane.seed == SEARCH_SEED for lane, _ in list(run(schedule())[0])[:4])
