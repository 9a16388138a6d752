"""Hostile files by the hundred: carried out or refused with a typed error, never anything else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from benchmarks.reliability import arguments, files, limits, opening
from benchmarks.reliability.group import Counts
from benchmarks.reliability.sandbox import try_all
from cerewrite.errors import PlanError

QUICK = (files.odd_files, opening.opening)
LONG = (
    files.plans,
    files.reports,
    files.weights,
    files.calibration,
    arguments.arguments,
    limits.limits,
)


def holds(counts: Counts) -> None:
    assert counts.held, counts
    assert counts.accepted + counts.refused == counts.cases
    assert counts.refused, "nothing was hostile"


@pytest.mark.parametrize(
    "run",
    [*QUICK, *(pytest.param(run, marks=pytest.mark.thorough) for run in LONG)],
    ids=lambda run: str(run.__name__),
)
def test_two_hundred_of_each(run: Callable[[int], Counts]) -> None:
    counts = run(200)
    holds(counts)
    assert counts.cases >= 12


@pytest.mark.slow
@pytest.mark.parametrize("run", [*QUICK, *LONG], ids=lambda run: str(run.__name__))
def test_ten_thousand_of_each(run: Callable[[int], Counts]) -> None:
    holds(run(10_000))


def write(path: Path, case: int) -> None:
    path.write_text(str(case))


def tried(attempt: Callable[[Path], object], seconds: float = 0.2) -> Counts:
    return try_all(st.just(1), write, attempt, 1, seconds=seconds)


@pytest.mark.thorough
def test_the_sandbox_sees_what_it_should() -> None:
    """Planted faults, one of each kind: an untyped error, a hang, a write, too much memory."""

    def refused(path: Path) -> None:
        raise PlanError("no", advice="no")

    assert tried(lambda path: path.read_text()).accepted == 1
    assert tried(refused).refused == 1
    assert tried(lambda path: 1 / 0).untyped == ("ZeroDivisionError: division by zero",)
    assert tried(lambda path: time.sleep(5)).hangs == 1
    assert tried(lambda path: path.with_name("other").write_text("x")).writes == 1
    assert tried(lambda path: os.remove(path)).writes == 1
    assert "MemoryError" in tried(lambda path: bytearray(4 << 30)).untyped[0]
    assert "ended with" in tried(lambda path: os._exit(9)).untyped[0]
