"""The allocation against exhaustive search over random lists, and its bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

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


def optimum(values: list, loads: list, room: np.ndarray) -> float:
    """The least value, by branch and bound (HiGHS)."""
    lists = np.repeat(np.arange(len(values)), [len(value) for value in values])
    one_of_each = LinearConstraint(np.equal.outer(np.arange(len(values)), lists), 1, 1)
    within = LinearConstraint(np.concatenate(loads).T, ub=room)
    values = np.concatenate(values)
    solved = milp(
        values,
        constraints=[one_of_each, within],
        integrality=np.ones(len(values)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    assert solved.success
    return float(solved.fun)


def wide_lists(seed: int) -> tuple[list, list, np.ndarray]:
    """Several lists under two limits, with thousands of partial choices that nothing beats."""
    draw = np.random.default_rng(seed)
    count, options = int(draw.integers(4, 9)), int(draw.integers(15, 60))
    values, loads = [], []
    for _ in range(count):
        load = draw.uniform(0.0, 1.0, (options, 2))
        worth = 1.0 / (0.2 + load @ draw.uniform(0.5, 1.5, 2))
        values.append(worth + draw.uniform(0.0, 0.3, options))
        loads.append(np.ceil(1000.0 * load))
    least, mean = (sum(f(load, axis=0) for load in loads) for f in (np.min, np.mean))
    return values, loads, np.floor(least + draw.uniform(0.1, 0.6, 2) * (mean - least))


def test_what_is_called_exact_is_the_optimum() -> None:
    """Seed 10 has a front too long to be compared whole."""
    exact = []
    for seed in (0, 1, 2, 4, 10, 11, 12, 14):
        values, loads, room = wide_lists(seed)
        found = allocate(values, loads, room)
        assert found is not None
        least = optimum(values, loads, room)
        assert found.bound <= least * (1.0 + 1e-9)
        assert found.value >= least * (1.0 - 1e-9)
        if found.exact:
            assert found.value == pytest.approx(least, rel=1e-7)
        exact.append(found.exact)
    assert exact.count(False) == 1, "one case that is cut short, all others solved"


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
