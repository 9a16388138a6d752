"""The training study: stacked training, statistics, resuming, and what its document says."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from benchmarks.training import study
from benchmarks.training.data import Data
from benchmarks.training.designs import Design, analyse, build, choose, figures
from benchmarks.training.models import mlp, residual_cnn
from benchmarks.training.stacked import Outcome, Recipe, batches, losses, train
from benchmarks.training.statistics import (
    bootstrap,
    difference,
    partial_spearman,
    share,
    spearman,
    spread_ratio,
)
from benchmarks.training.store import Store
from benchmarks.training.tasks import TASKS, Task


def tiny_data(loss: str = "cross-entropy", images: bool = False) -> Data:
    generator = torch.Generator().manual_seed(0)
    shape = (40, 1, 8, 8) if images else (40, 12)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=generator)
    targets = nn.functional.one_hot(y, 3).double() if loss == "mse" else y
    return Data(x[:32], targets[:32], x[32:], targets[32:], 1.0)


def tiny_mlp() -> nn.Module:
    return mlp(12, 3, 16, 3)


TINY = replace(
    TASKS["mlp4x128"],
    build=tiny_mlp,
    data=lambda: replace(tiny_data(), x=tiny_data().x.float(), test_x=tiny_data().test_x.float()),
    steps=12,
    batch=8,
    rates={"sgd": (0.01, 0.1), "adam": (0.001, 0.01)},
)


def separately(model: nn.Module, seed: int, rate: float, data: Data, recipe: Recipe) -> Outcome:
    """What `train` does, for one copy, with torch's own optimisers."""
    model = copy.deepcopy(model).train()
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), rate, momentum=0.9)
        if recipe.optimiser == "sgd"
        else torch.optim.Adam(model.parameters(), rate)
    )
    history = []
    for index in batches(seed, len(data.x), recipe):
        loss = losses(model(data.x[index])[None], data.y[index][None], recipe.loss)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    model.eval()
    with torch.no_grad():
        outputs = model(data.test_x)
        test = float(losses(outputs[None], data.test_y[None], recipe.loss))
    curve = [float(np.mean(history[max(i - 10, 0) : i])) for i in range(1, len(history) + 1)]
    final = float(np.mean(history[-max(recipe.steps // 10, 1) :]))
    right = math.nan
    if recipe.loss == "cross-entropy":
        right = float((outputs.argmax(1) == data.test_y).double().mean())
    return Outcome(tuple(curve), final, test, right)


def flat(outcome: Outcome) -> list[float]:
    return [*outcome.curve, outcome.final, outcome.test_loss, outcome.accuracy]


def ensembles(seeds: Sequence[int]) -> list[nn.Module]:
    """A rewritten model, block-diagonal linears inside, per seed."""
    analysis = analyse(TINY)
    name = analysis.regions[0].name
    design = Design(("planted",), ((name, 3, (4, 5, 4)),))
    return [model.double() for model in build(TINY, analysis, design, seeds)]


def norms(seeds: Sequence[int]) -> list[nn.Module]:
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(residual_cnn(1, 1, 6, 4, 3).double())
    return models


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "loss", "images"),
    [(ensembles, "cross-entropy", False), (ensembles, "mse", False),
     (norms, "cross-entropy", True)],
)  # fmt: skip
def test_stacked_training_equals_separate_training(
    make: Callable[[Sequence[int]], list[nn.Module]], loss: str, images: bool, optimiser: str
) -> None:
    seeds, rates = [1, 1, 2], [0.01, 0.003, 0.01]
    by_seed = dict(zip((1, 2), make((1, 2)), strict=True))
    models = [by_seed[seed] for seed in seeds]
    before = copy.deepcopy([model.state_dict() for model in models])
    data, recipe = tiny_data(loss, images), Recipe(optimiser, 14, 8, loss)
    together = train(models, seeds, rates, data, recipe)
    for model, seed, rate, outcome in zip(models, seeds, rates, together, strict=True):
        alone = separately(model, seed, rate, data, recipe)
        assert flat(outcome) == pytest.approx(flat(alone), rel=1e-9, nan_ok=True)
    # the comparison would see another rate, or another seed
    for other in together[1:]:
        assert flat(other) != pytest.approx(flat(together[0]), rel=1e-3, nan_ok=True)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_copy_that_diverges_leaves_the_others_alone() -> None:
    models, data = ensembles((1, 1)), tiny_data("mse")
    recipe = Recipe("sgd", 30, 8, "mse")
    both = train(models, [1, 1], [0.01, 1e9], data, recipe)
    alone = train(models[:1], [1], [0.01], data, recipe)
    assert both[1].final == math.inf
    assert flat(both[0]) == pytest.approx(flat(alone[0]), rel=1e-12, nan_ok=True)


def test_batches_are_epochs_of_shuffled_examples() -> None:
    recipe = Recipe("sgd", 9, 8, "mse")
    index = batches(3, 33, recipe)
    assert index.shape == (9, 8)
    for epoch in (index[:4], index[4:8]):
        assert len(epoch.unique()) == 32
    assert not torch.equal(index[:4], index[4:8])
    assert torch.equal(index, batches(3, 33, recipe))


def test_steps_are_counted_to_the_first_crossing() -> None:
    outcome = Outcome((2.0, 0.9, 1.1, 0.4), 0.4, 0.4, 1.0)
    assert [outcome.steps_to(level) for level in (2.0, 1.0, 0.4, 0.1)] == [1, 2, 4, None]


def test_designs_are_built_as_they_are_counted() -> None:
    analysis = analyse(TINY)
    designs = choose(analysis)
    assert designs[0].labels[0] == "baseline"
    assert len({design.key for design in designs}) == len(designs) >= 4
    for design in designs:
        (model,) = build(TINY, analysis, design, [0])
        found = figures(analysis, design)
        assert sum(p.numel() for p in model.parameters()) == found["params"] <= analysis.params
    planned = figures(analysis, next(d for d in designs if "primal log-variance" in d.labels))
    for design in designs:
        assert planned["log-variance"] <= figures(analysis, design)["log-variance"] * (1 + 1e-9)


def test_rank_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 30)).round(1)
    y = x + z
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    xy, xz, yz = (spearman(a, b) for a, b in ((x, y), (x, z), (y, z)))
    known = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_spearman(x, y, [z]) == pytest.approx(known)
    assert math.isnan(partial_spearman(z, y, [3 * z + 1]))
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_intervals_are_scipys() -> None:
    x, y = [1.0, 2.0, 4.0, 4.5], [0.5, 0.7, 3.0]
    known = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    found = difference(x, y)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    wilson = stats.binomtest(3, 20).proportion_ci(method="wilson")
    assert (share(3, 20).low, share(3, 20).high) == pytest.approx((wilson.low, wilson.high))
    twice = spread_ratio([2 * v for v in x], x)
    assert twice.value == pytest.approx(2.0)
    assert twice.low < 1.0 < twice.high


@pytest.mark.thorough
@pytest.mark.parametrize(("bias", "least", "most"), [(0.0, 0.85, 1.0), (0.5, 0.0, 0.5)])
def test_the_bootstrap_covers_the_truth_and_not_a_biased_one(
    bias: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12.0), 4)
    hits = []
    for seed in range(60):
        level = rng.normal(0.0, 0.3, 12)[groups.astype(int)]
        outcomes = level[:, None] + rng.normal(0.0, 0.5, (48, 3))
        (found,) = bootstrap(lambda i, g, y: [y.mean()], groups, outcomes, draws=150, seed=seed)
        hits.append(found.low <= bias <= found.high)
    assert least <= np.mean(hits) <= most


def test_resampled_groups_count_as_different_ones() -> None:
    seen = set()
    groups = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0])

    def statistic(index: Any, label: Any, y: Any) -> list[float]:
        seen.add(len(np.unique(label)))
        return [0.0]

    bootstrap(statistic, groups, np.ones((6, 2)), draws=20)
    assert seen == {3}


def record(**changes: Any) -> dict[str, Any]:
    key = {"kind": "stack", "task": "t", "design": "d", "optimiser": "sgd", "phase": "sweep"}
    return key | {"final": [0.5]} | changes


def test_the_store_keeps_the_last_record_and_survives_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    store = Store(path)
    store.add(record())
    store.add(record(final=[math.inf, 1 / 3]))
    store.add(record(final=[math.inf, 1 / 3]))
    store.add(record(phase="final"))
    with path.open("a") as file:
        file.write('{"kind": "stack", "task"')
    again = Store(path)
    assert [r["final"] for r in again.of("stack")] == [[None, 0.33333], [0.5]]
    assert len(path.read_text().splitlines()) == 3
    again.compact()
    assert [json.loads(line)["final"] for line in path.read_text().splitlines()] == [
        [None, 0.33333],
        [0.5],
    ]


def test_the_rate_is_chosen_by_the_final_loss_and_failures_count_as_a_constant() -> None:
    rates, final = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3], [0.5, 0.4, 0.1, 5.0, 0.01, None]
    sweep = record(rates=rates, final=final)
    assert study.best_rate(sweep, chance=1.0) == 0.3
    assert study.best_rate(sweep, chance=100.0) == 0.1


class Stopped(Exception):
    """Planted by the test."""


@pytest.mark.thorough
def test_a_study_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(analysis: Any) -> list[Design]:
        shape = (analysis.regions[0].name, 3, (4, 5, 4))
        return [Design(("baseline",), ()), Design(("by hand",), (shape,))]

    monkeypatch.setattr(study, "choose", two)
    whole = Store(tmp_path / "whole.jsonl")
    study.run([TINY], 3, whole)
    assert len(whole.of("stack")) == 8
    path, calls = tmp_path / "parts.jsonl", []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return train(*arguments)

    monkeypatch.setattr(study, "train", counted)
    with pytest.raises(Stopped):
        study.run([TINY], 3, Store(path))
    study.run([TINY], 3, Store(path))
    assert len(calls) == 9
    study.run([TINY], 3, Store(path))
    assert len(calls) == 9
    assert [timeless(r) for r in Store(path).of("stack")] == [
        timeless(r) for r in whole.of("stack")
    ]
    study.run([TINY], 4, Store(path))  # more seeds: the reported runs alone
    assert len(calls) == 13
    monkeypatch.setattr(study, "choose", lambda analysis: two(analysis)[:1])
    study.run([TINY], 4, Store(path))
    assert [r["labels"] for r in Store(path).of("design")] == [["baseline"], []]


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "seconds"}


def test_tasks_are_sound() -> None:
    for name, task in TASKS.items():
        assert isinstance(task, Task)
        assert task.name == name
        assert task.target in study.LEVELS
        assert all(len(rates) >= 3 for rates in task.rates.values())
