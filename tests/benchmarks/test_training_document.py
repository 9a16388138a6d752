"""What the training study's document says follows from the results, and can be wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.training import gains
from benchmarks.training.__main__ import DOCUMENT, GAINS, RESULTS
from benchmarks.training.compare import over_tasks, pairs, tally
from benchmarks.training.correlate import MEASURES, partial_within, within_baselines
from benchmarks.training.designs import Design, analyse, figures
from benchmarks.training.evidence import Entry, gather
from benchmarks.training.regret import regrets
from benchmarks.training.report import document
from benchmarks.training.store import Store
from benchmarks.training.tasks import OPTIMISERS, TASKS
from benchmarks.training.verdicts import verdicts, word

BOOTSTRAPPED = (
    "## What orders designs as training does",
    "## What a predictor's pick costs",
    "## In short",
)


def entry(
    task: str, optimiser: str, label: str, level: float, speed: float, noise: np.random.Generator
) -> Entry:
    """Five runs whose steps and losses are about ``speed``; measures at ``level``."""
    jitter = np.exp(noise.normal(0.0, 0.05, 5))
    target = str(TASKS[task].target)
    record = {
        "seeds": [100, 101, 102, 103, 104],
        "rates": [0.01] * 5,
        "final": (0.01 * speed * jitter).tolist(),
        "test_loss": (0.05 * speed * jitter).tolist(),
        "accuracy": (1.0 - 0.01 * speed * jitter).tolist(),
        "steps": {target: np.ceil(50 * speed * jitter).tolist()},
        "seconds": 1.0,
    }
    width = {"total width": 100.0 / level, "params": 1000.0}
    values = width | dict.fromkeys(MEASURES, level)
    return Entry(TASKS[task], optimiser, (label,), [], values, record, record)


def study(speed_of_least: float) -> list[Entry]:
    """Three tasks, four designs each; the design of least measure is so fast."""
    noise = np.random.default_rng(0)
    levels = {"baseline": 1.0, "by hand 2": 0.8, "by hand 8": 0.6, "primal log-variance": 0.4}
    return [
        entry(task, optimiser, label, level, speed_of_least ** ((1 - level) / 0.6), noise)
        for task in ("mlp4x128", "mlp6x96", "mlp12x64")
        for optimiser in OPTIMISERS
        for label, level in levels.items()
    ]


def told(entries: list[Entry]) -> str:
    from benchmarks.training.correlations import correlations

    _, answers = correlations(entries, 20)
    return " ".join(verdicts(entries, answers))


@pytest.mark.thorough
def test_a_planted_gain_is_reported_and_a_planted_loss_too() -> None:
    gain, loss = told(study(0.5)), told(study(2.0))
    assert "Faster at equal parameters? Yes, faster." in gain
    assert "Faster at equal parameters? No, slower." in loss
    assert "faster in 6, slower in 0" in " ".join(gain.split())
    assert "faster in 0, slower in 6" in " ".join(loss.split())
    assert "Faster at equal parameters? Not shown." in told(study(1.0))


def test_gaps_and_correlations_have_the_planted_sign() -> None:
    for speed, sign in ((0.5, 1), (2.0, -1)):
        entries = [e for e in study(speed) if e.optimiser == "sgd"]
        gap = over_tasks(pairs(entries, "primal log-variance"), "steps")
        assert gap is not None
        assert math.exp(gap.value) == pytest.approx(speed, rel=0.1)
        assert gap.side() == -sign
        found = within_baselines(entries, MEASURES, "steps", 50)
        assert all(found[name].value * sign > 0.9 for name in MEASURES)
        assert tally(pairs(entries, "primal log-variance"), "steps")[(1 - sign) // 2] == 3
        # measures and width rank alike here: nothing is left of the one given the other
        assert all(math.isnan(v.value) for v in partial_within(entries, "steps", 10).values())


def test_a_pick_costs_what_was_planted() -> None:
    for speed, cost in ((0.5, 1.0), (2.0, 2.0)):
        found = regrets([e for e in study(speed) if e.optimiser == "adam"], MEASURES, "steps", 20)
        assert math.exp(found["nu"].value) == pytest.approx(cost, rel=0.1)
        assert found["sign-variance - nu"].value == 0.0


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([-1, -1], "Yes, faster"),
        ([1, 1], "No, slower"),
        ([-1, 0], "In part"),
        ([-1, 1], "Mixed"),
        ([0, 1], "No, in part slower"),
        ([0, 0], "Not shown"),
    ],
)
def test_words_follow_the_intervals(sides: list[int], said: str) -> None:
    assert word(sides, "faster", "slower") == said


def sections(text: str) -> dict[str, str]:
    parts = ("\n" + text).split("\n## ")
    return {"## " + part.split("\n", 1)[0]: part for part in parts}


def test_the_document_is_that_of_the_results() -> None:
    written, fresh = sections(DOCUMENT.read_text()), sections(document(Store(RESULTS), draws=2))
    assert list(written) == list(fresh)
    for title in set(written) - set(BOOTSTRAPPED):
        assert written[title] == fresh[title], f"run the report again: {title}"


@pytest.mark.slow
def test_the_document_is_that_of_the_results_with_its_bootstrap() -> None:
    assert DOCUMENT.read_text() == document(Store(RESULTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp4x128", "mlp16x48", "cnn6x24"])
def test_the_measures_in_the_results_are_the_products(name: str) -> None:
    analysis = analyse(TASKS[name])
    for record in (r for r in Store(RESULTS).of("design") if r["task"] == name and r["labels"]):
        shapes = tuple((region, m, tuple(widths)) for region, m, widths in record["shapes"])
        found = figures(analysis, Design((), shapes))
        assert record["figures"] == pytest.approx(found, rel=1e-3)


def test_the_results_are_as_many_as_the_study_promises() -> None:
    entries = gather(Store(RESULTS))
    assert len({(e.task.name, str(e.shapes)) for e in entries}) >= 30
    assert min(len(e.final["seeds"]) for e in entries) >= 5
    assert {e.optimiser for e in entries} == set(OPTIMISERS)
    assert min(e.task.depth for e in entries) <= 4
    assert max(e.task.depth for e in entries) >= 24
    assert not {e.final["seeds"][0] for e in entries} & {
        seed for e in entries for seed in e.sweep["seeds"]
    }


@pytest.mark.thorough
def test_the_packages_table_of_gains_is_made_of_the_stored_results() -> None:
    """Ratios are as stored, ends to a tenth: fewer resamples are drawn here."""
    made = gains.table(Store(RESULTS), draws=200)
    for row, kept in zip(made, json.loads(GAINS.read_text(encoding="utf-8")), strict=True):
        ends, wanted = row.pop("ends"), kept.pop("ends")
        assert row == kept and ends == pytest.approx(wanted, abs=0.1)
