"""One call timed."""

from __future__ import annotations

from collections.abc import Callable

from cerewrite.timing.interleave import interleave

RUNS = 5
"""Runs behind each median of a profile."""


def nanoseconds(action: Callable[[], object], *, quick: bool = False) -> float:
    """Median nanoseconds per call; ``quick`` for the fastest of fewer and shorter runs."""
    if quick:
        (sample,) = interleave([action], warm=1, runs=3, least=3, shortest=0.002)
        return 1e9 * sample.fastest
    (sample,) = interleave([action], runs=RUNS)
    return 1e9 * sample.median
