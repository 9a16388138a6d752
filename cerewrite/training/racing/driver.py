"""The loop of a race: what is to do next, done, kept; until it is over or its time is."""

from __future__ import annotations

from collections.abc import Callable

from cerewrite.errors import TrainingError
from cerewrite.training.racing.lanes import Trainer
from cerewrite.training.racing.records import Records
from cerewrite.training.racing.schedule import FIRST_SEED, Job, Schedule

Told = Callable[[str, float], None]
"""What is done now, and the share of the time that is spent."""


def drive(
    schedule: Schedule, trainer: Trainer, records: Records, seconds: float, tell: Told
) -> None:
    """Train until the race is over, or its time is; every result is kept as it comes.

    Args:
        schedule: who trains next.
        trainer: does it.
        records: what is known; results are added.
        seconds: after so much work no further job is begun, those before a resumption included.
        tell: is told what is done now.

    Raises:
        TrainingError: if the baseline diverges at every rate, or the time was over before the
            first round of the finals; what was learnt is kept.
    """
    while jobs := schedule.pending(records.points):
        _require_baseline(schedule, records)
        job = jobs[0]
        ahead = _ahead(schedule, job, records)
        if records.spent and records.spent + ahead > seconds:
            break
        lane = job.lane
        tell(
            f"{lane.design} at rate {lane.rate:g}, seed {lane.seed}, to step {job.steps:,}",
            min(1.0, records.spent / seconds),
        )
        point, spent = trainer.advance(job)
        records.add(lane, job.steps, point, spent)
        records.keep_states(schedule.lanes(records.points))
    _require_baseline(schedule, records)
    if schedule.pending(records.points) and not schedule.rounds(records.points):
        raise TrainingError(
            f"{seconds:g} s are over before the first round of the finals: training took longer "
            f"than it was timed to; {len(records.points)} results are kept in {records.folder}",
            advice=f"race again with the same records and --seconds {_enough(seconds)}",
        )


def _ahead(schedule: Schedule, job: Job, records: Records) -> float:
    """Seconds that a job takes, by the step time of its design."""
    done = max((n for lane, n in records.points if lane == job.lane), default=0)
    return (job.steps - done) * schedule.time(job.lane.design)


def _enough(seconds: float) -> str:
    return f"{2 * seconds:g}"


def _require_baseline(schedule: Schedule, records: Records) -> None:
    first = schedule.designs[0]
    seeds = {lane.seed for (lane, _), point in records.points.items()
             if point.failed and lane.design == first and lane.seed >= FIRST_SEED}  # fmt: skip
    if first not in schedule.alive(records.points) or len(seeds) == schedule.seeds:
        rates = ", ".join(f"{rate:g}" for rate in schedule.rates)
        raise TrainingError(
            f"the {first} diverges at every rate: {rates}; {len(records.points)} results are kept "
            f"in {records.folder}",
            advice="race anew with lower rates (--rates) and other records",
        )
