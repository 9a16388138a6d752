"""The races' page is what the stored records say; the table of gains reads them rightly."""

from __future__ import annotations

import math

import pytest

from benchmarks.training.__main__ import DOCUMENT
from benchmarks.training.gains import FARTHEST, _steps
from benchmarks.training.race_report import document, results
from benchmarks.training.races import BASELINE, SEEDS, tasks


def test_the_page_is_made_of_the_records() -> None:
    page = DOCUMENT.with_name("RACE.md").read_text(encoding="utf-8")
    assert page == document()
    assert all(result.title in page for result in results())


def test_every_race_has_its_seeds_and_a_baseline() -> None:
    found = results()
    assert len(found) >= 6
    for result in found:
        base = result.get(BASELINE)
        assert base is not None and base.at_steps is not None and base.at_steps.runs == SEEDS
        assert result.header["task"] in tasks()
        assert result.schedule.steps == tasks()[result.header["task"]].steps


@pytest.mark.parametrize("power", [0.3, 1.0, 2.0])
def test_steps_to_a_loss_are_read_off_a_power_law(power: float) -> None:
    curve = {steps: steps**-power for steps in (50, 100, 150, 200)}
    for steps in (60.0, 100.0, 199.0, 400.0, 30.0):
        assert _steps(curve, steps**-power) == pytest.approx(math.log(steps))
    assert _steps(curve, 1e-9) == pytest.approx(math.log(200 * FARTHEST))
