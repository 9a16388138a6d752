"""One call timed."""

from __future__ import annotations

from collections.abc import Callable

from cerewrite.timing.interleave import interleave

RUNS = 5
"""Runs behind each median of a profile."""


def nanoseconds(action: Callable[[], object]) -> float:
    """Median nanoseconds per call."""
    (sample,) = interleave([action], runs=RUNS)
    return 1e9 * sample.median
