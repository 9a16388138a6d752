"""Expected gains: the row of a plan, and no row where nothing like it was trained."""

from __future__ import annotations

import dataclasses

import pytest

from cerewrite import ir
from cerewrite.planning import make_plan
from cerewrite.planning.expected import WIDE, expected_gain, gains, is_wide
from cerewrite.reporter.expected import expectation
from tests.planning.builders import analysis_of, chain_region
from tests.planning.test_held import with_costs


def plan(
    before: float = 0.5, after: float = 0.3, share: float = 1.0, *, timed: bool = False
) -> ir.Plan:
    analysis = analysis_of([chain_region("r", (64, 64, 64), 16, 10)])
    made = make_plan(with_costs(analysis) if timed else analysis)
    assert made.splits

    def figures(old: ir.Figures, variance: float, params: int) -> ir.Figures:
        measures = dataclasses.replace(old.measures, log_variance=variance)
        return dataclasses.replace(old, measures=measures, params=params)

    return dataclasses.replace(
        made,
        baseline=figures(made.baseline, before, 1000),
        planned=figures(made.planned, after, int(1000 * share)),
    )


def test_rows_meet_and_cover_everything() -> None:
    rows = gains()
    assert rows[0].low == 0.0 and rows[-1].high is None
    assert [row.high for row in rows[:-1]] == [row.low for row in rows[1:]]
    for row in rows:
        assert row.ends[0] < row.ratio < row.ends[1] and row.baselines >= 3
        assert row.trainings >= 5 * row.designs


@pytest.mark.parametrize("before", [0.06, 0.1, 0.249, 0.25, 1.0, 1.1, 30.0])
def test_a_plan_has_the_row_of_its_baseline(before: float) -> None:
    found = expected_gain(plan(before, 0.5 * before))
    assert found is not None and found.low <= before and before < (found.high or 1e9)
    (line,) = expectation(plan(before, 0.5 * before))
    assert f"{found.ratio:.2f} [{found.ends[0]:.2f}" in line
    assert f"{found.trainings} trainings" in line


@pytest.mark.parametrize(
    ("before", "after", "share", "words"),
    [
        (0.04, 0.01, 1.0, "No gain in training is to be expected"),
        (0.5, 0.49, 1.0, "hardly smaller"),
        (0.5, 0.3, 0.4, "this one 0.40"),
        (0.5, 0.3, 3.0, "this one 3.00"),
    ],
)
def test_nothing_is_promised_of_what_was_not_trained(
    before: float, after: float, share: float, words: str
) -> None:
    made = plan(before, after, share)
    assert expected_gain(made) is None and is_wide(made) == (before < WIDE)
    assert words in expectation(made)[0]


def test_of_a_dual_plan_nothing_is_said() -> None:
    assert expectation(dataclasses.replace(plan(), objective="dual")) == ()


def test_seconds_are_steps_times_the_forecast_step() -> None:
    made = plan(timed=True)
    found = expected_gain(made)
    assert found is not None and "in seconds" in expectation(made)[0]
    assert "in seconds" not in expectation(plan())[0]
