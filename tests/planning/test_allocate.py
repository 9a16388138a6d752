"""The allocation against exhaustive search over random lists, and its bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cerewrite.planning.allocate import allocate
from cerewrite.planning.front import pareto
from cerewrite.planning.lagrange import best_prices, join_options


def lists(seed: int, count: int, options: int, limits: int) -> tuple[list, list, np.ndarray]:
    draw = np.random.default_rng(seed)
    loads = [draw.integers(1, 50, (options, limits)).astype(float) for _ in range(count)]
    values = [100.0 / load.sum(axis=1) + draw.random(options) for load in loads]
    least = sum(load.min(axis=0) for load in loads)
    most = sum(load.max(axis=0) for load in loads)
    return values, loads, np.floor(least + draw.uniform(0.05, 0.9) * (most - least))


@pytest.mark.parametrize("limits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(25))
def test_it_equals_exhaustive_search(seed: int, limits: int) -> None:
    values, loads, room = lists(seed, 4, 7, limits)
    best = min(
        (
            sum(value[i] for value, i in zip(values, choice, strict=True))
            for choice in itertools.product(range(7), repeat=4)
            if (sum(load[i] for load, i in zip(loads, choice, strict=True)) <= room).all()
        ),
        default=None,
    )
    found = allocate(values, loads, room)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(best, rel=1e-12)
    assert found.exact
    assert found.bound <= found.value
    total = sum(load[i] for load, i in zip(loads, found.chosen, strict=True))
    assert (total <= room).all()


@pytest.mark.parametrize("limits", [1, 2])
def test_many_lists_are_solved_to_a_small_gap(limits: int) -> None:
    values, loads, room = lists(0, 60, 40, limits)
    found = allocate(values, loads, room)
    assert found is not None
    assert 0.0 <= found.gap < 0.005


def test_a_start_is_never_lost() -> None:
    values, loads, room = lists(3, 30, 20, 2)
    cheapest = [int(np.argmin(load.max(axis=1))) for load in loads]
    found = allocate(values, loads, room, [cheapest])
    if (sum(load[i] for load, i in zip(loads, cheapest, strict=True)) <= room).all():
        assert found is not None
        assert found.value <= sum(v[i] for v, i in zip(values, cheapest, strict=True))


def test_no_room() -> None:
    assert allocate([np.ones(2)], [np.ones((2, 1))], np.array([0.5])) is None
    assert allocate([np.ones(2)], [np.ones((2, 1))], np.array([-1.0])) is None


def test_the_bound_is_below_every_feasible_choice_and_reaches_the_linear_optimum() -> None:
    options = join_options(
        [np.array([4.0, 2.0, 0.0])], [np.array([[0.0], [1.0], [2.0]])], np.array([1.5])
    )
    assert best_prices(options).bound == pytest.approx(1.0)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_pareto_equals_its_definition(columns: int) -> None:
    rows = np.random.default_rng(columns).integers(0, 9, (200, columns)).astype(float)
    front = {tuple(row) for row in rows[pareto(rows)]}
    brute = {
        tuple(row)
        for row in rows
        if not any((other <= row).all() and (other < row).any() for other in rows)
    }
    assert front == brute
    assert len(pareto(rows)) == len(front)


def test_pareto_keeps_the_first_of_equals() -> None:
    assert pareto(np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])).tolist() == [1, 0]
