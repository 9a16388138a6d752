"""Time several actions in turns, so that whatever disturbs the machine disturbs all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Action = Callable[[], object]

FEWEST = 5
"""Runs behind a median."""

SHORTEST = 0.005
"""Seconds that one run takes at least: short actions are repeated within it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds per call of one action.

    Attributes:
        median: median over the runs.
        spread: interquartile range.
        runs: number of runs.
        fastest: the fastest run, which other programs disturbed least.
    """

    median: float
    spread: float
    runs: int
    fastest: float


def interleave(
    actions: Sequence[Action],
    *,
    runs: int = 15,
    warm: int = 2,
    least: int = FEWEST,
    shortest: float = SHORTEST,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Sample]:
    """Median seconds per call of each action, measured in turns.

    Args:
        actions: what to time, each callable without arguments.
        runs: runs per action, at least 5; each repeats its action for 5 ms or more.
        least: fewest runs, whatever ``runs`` says.
        shortest: seconds that one run takes at least.
        warm: calls of each action before the first run (allocator, caches, compilation).
        clock: what tells the time, in seconds.

    Example:
        >>> fast, slow = interleave([lambda: sum(range(100)), lambda: sum(range(100_000))])
        >>> fast.median < slow.median
        True
    """
    repeats = [_repeats(action, warm, clock, shortest) for action in actions]
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(max(runs, least)):
        order = range(len(actions)) if turn % 2 else reversed(range(len(actions)))
        for index in order:
            seconds[index].append(_once(actions[index], repeats[index], clock))
    return [_sample(taken) for taken in seconds]


def _repeats(action: Action, warm: int, clock: Callable[[], float], shortest: float) -> int:
    spent = min(_once(action, 1, clock) for _ in range(warm + 1))
    return max(1, math.ceil(shortest / max(spent, 1e-7)))


def _once(action: Action, repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        action()
    return (clock() - start) / repeats


def _sample(seconds: list[float]) -> Sample:
    if len(seconds) == 1:
        return Sample(seconds[0], 0.0, 1, seconds[0])
    low, _, high = statistics.quantiles(seconds, n=4)
    return Sample(statistics.median(seconds), high - low, len(seconds), min(seconds))
