"""The search for one region: descent and grid against enumeration, and its landscape."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cerewrite.ir import Region
from cerewrite.planning import descent, landscape, search, useful
from cerewrite.planning.descent import sweep
from cerewrite.planning.measures import MEASURES
from cerewrite.planning.measures.base import FloatArray, IntArray
from cerewrite.planning.problem import Constraints, Problem, build_problem
from cerewrite.planning.search import FINE, build_front, detail_for, thin
from tests.planning.builders import chain_region


def problem_of(region: Region, measure: str = "nu", **constraints: int) -> Problem:
    problem = build_problem(
        region,
        ["params"],
        MEASURES[measure],
        Constraints(widths="free", **{"min_width": 1, **constraints}),
    )
    assert isinstance(problem, Problem)
    return problem


@pytest.mark.parametrize("widths", [[6, 6], [4, 5, 4], [3, 4, 4, 3]])
def test_the_heuristic_search_is_close_to_enumeration(
    widths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(chain_region("r", widths, 20, 10, kernels=[1] + [3] * len(widths)))
    cap = 3.0 * problem.original()[0]
    monkeypatch.setattr(search, "EXHAUSTIVE", 10**9)
    full = build_front(problem, FINE, cap)
    monkeypatch.setattr(search, "EXHAUSTIVE", 0)
    found = build_front(problem, FINE, cap)
    best = np.minimum.accumulate(found.score)
    at = np.searchsorted(found.costs[:, 0], full.costs[:, 0], side="right") - 1
    loss = best[np.maximum(at, 0)] / full.score - 1.0
    large = full.costs[:, 0] > 1.2 * full.costs[0, 0]
    assert loss[large].max() < 0.01
    assert np.median(loss) < 1e-9


def test_the_descent_covers_all_costs() -> None:
    problem = problem_of(chain_region("r", [64] * 6, 100, 10))
    rows = problem.expand(sweep(problem, FINE.slopes))
    costs = np.sort(problem.table(np.ones(1, dtype=np.int64), rows)[:, 0, 0])
    assert costs[0] == problem.table(np.ones(1, dtype=np.int64), np.ones((1, 6), int))[0, 0, 0]
    assert (costs[1:] / costs[:-1]).max() < 2.5


def test_large_regions_keep_equal_classes_equal() -> None:
    problem = problem_of(chain_region("r", [32, 64] * 20, 10, 10))
    assert len(problem.values) == 2
    assert problem.expand(np.asarray([[3, 7]])).tolist() == [[3, 7] * 20]


@pytest.mark.parametrize("measure", list(MEASURES))
def test_the_front_s_cut_of_useless_stretches_loses_nothing(
    measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(chain_region("r", [12, 12], 48, 48), measure=measure)
    cap = 60.0 * problem.original()[0]
    monkeypatch.setattr(useful, "FEW", 0)
    cut = build_front(problem, FINE, cap)
    monkeypatch.setattr(useful, "FEW", 10**9)
    whole = build_front(problem, FINE, cap)
    assert cut.considered < whole.considered
    np.testing.assert_array_equal(cut.costs, whole.costs)
    np.testing.assert_array_equal(cut.score, whole.score)


def test_thinning_keeps_both_ends() -> None:
    values = np.arange(4, 4000, 4)
    few = thin(values)
    assert (few[0], few[-1], len(few) < 100) == (4, 3996, True)
    assert thin(values[:5]).tolist() == values[:5].tolist()


def test_fewer_regions_are_searched_more_finely() -> None:
    assert detail_for(1).dense > detail_for(16).dense


def test_landscape() -> None:
    region = chain_region("r", [64, 32], 100, 10)
    found = landscape(region, rows=8)
    assert found.widths[-1] == (64, 32)
    assert len(found.values) == len(found.costs) == len(found.widths)
    assert found.best is not None
    row, column = found.best
    assert found.costs[row][column] <= found.limit == found.costs[-1][0]
    assert found.values[row][column] == min(
        nu
        for nus, costs in zip(found.values, found.costs, strict=True)
        for nu, cost in zip(nus, costs, strict=True)
        if cost <= found.limit
    )
    assert landscape(region, limit=0.0).best is None


NO_HELP = 0.005
"""The most by which a search without least widths may stay behind one with them."""


def gain_of_a_floor(widths: list[int], inputs: int, measure: str) -> float:
    """By how much the best of several least widths beats none, relative."""
    region = chain_region("r", widths, inputs, 10, kernels=[9] * len(widths) + [1])
    free, *held = (problem_of(region, measure, min_width=least) for least in (1, 4, 8))
    best = [float(build_front(p, FINE, p.original()[0]).score.min()) for p in (free, *held)]
    return best[0] / min(best[1:]) - 1.0


@pytest.mark.thorough
@pytest.mark.parametrize("measure", ["log-variance", "nu"])
def test_a_least_width_does_not_help(measure: str) -> None:
    draw = random.Random(3)
    chains = [([16] * 12, 1)]
    for _ in range(2):
        depth = draw.randint(5, 11)
        chains.append(([draw.choice([16, 24, 32]) for _ in range(depth)], draw.choice([1, 3, 20])))
    assert max(gain_of_a_floor(*chain, measure) for chain in chains) < NO_HELP


@pytest.mark.thorough
def test_descent_on_nu_itself_would_miss_designs(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_nu(problem: Problem, index: IntArray, weights: FloatArray) -> tuple[FloatArray, ...]:
        widths = problem.expand(problem.widths_at(index))
        costs = problem.table(np.ones(1, dtype=np.int64), widths)[:, 0]
        return problem.member(widths)[:, 0], costs @ weights

    monkeypatch.setattr(descent, "_evaluate", on_nu)
    assert gain_of_a_floor([16] * 12, 1, "log-variance") > 4 * NO_HELP
