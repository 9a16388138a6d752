"""Budgets as users write them."""

from __future__ import annotations

import pytest

from cerewrite.errors import UsageError
from cerewrite.ir import Budget
from cerewrite.planning.budgets import (
    Absolute,
    BudgetRequest,
    Relative,
    read_requests,
    resolve_budgets,
    write_amount,
)
from tests.planning.builders import analysis_of, chain_region

ANALYSIS = analysis_of([chain_region("r", [16, 16], 8, 4)], extra_params=1000)


@pytest.mark.parametrize(
    ("text", "cost", "limit"),
    [
        ("params", "params", ANALYSIS.params),
        ("params=equal", "params", ANALYSIS.params),
        ("params=1x", "params", ANALYSIS.params),
        ("params=0.5x", "params", 0.5 * ANALYSIS.params),
        ("params=50%", "params", 0.5 * ANALYSIS.params),
        ("params=.5x", "params", 0.5 * ANALYSIS.params),
        ("params=10M", "params", 10_000_000),
        ("params=10k", "params", 10_000),
        ("params=10K", "params", 10_000),
        ("flops=1.2G", "flops", 1_200_000_000),
        ("flops=2T", "flops", 2e12),
        ("params=123456", "params", 123_456),
        ("params=123_456", "params", 123_456),
        ("params=1e6", "params", 1e6),
        (" params = 3 M ", "params", 3e6),
        ("flops", "flops", ANALYSIS.flops),
        ("params=0", "params", 0.0),
    ],
)
def test_forms(text: str, cost: str, limit: float) -> None:
    (budget,) = resolve_budgets(text, ANALYSIS)
    assert (budget.cost, budget.limit) == (cost, pytest.approx(limit))
    assert budget.text == text.strip()


@pytest.mark.parametrize("request_", ["params,flops=1G", ["params", "flops=1G"]])
def test_several_hold_together(request_: str | list[str]) -> None:
    budgets = resolve_budgets(request_, ANALYSIS)
    assert [budget.cost for budget in budgets] == ["params", "flops"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("parms", "unknown budget 'parms'"),
        ("params=", "no readable amount ''"),
        ("params=x", "no readable amount 'x'"),
        ("params=ten", "no readable amount 'ten'"),
        ("params=1.2.3", "no readable amount"),
        ("params=1Q", "unknown unit 'Q'"),
        ("params=10m", "'m' is not a unit"),
        ("params=-5", "is negative"),
        ("params=1e400", "not finite"),
        ("params=nan", "no readable amount"),
        ("params,params=0.5x", "'params' and 'params=0.5x' both limit params"),
        ("", "no budget"),
        ([], "no budget"),
        ("params,,flops", "empty budget"),
        ("=5", "unknown budget ''"),
    ],
)
def test_nonsense_is_refused(request_: str | list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_budgets(request_, ANALYSIS)
    assert caught.value.advice


@pytest.mark.parametrize("value", [1.0, 25_557_032.0, 1e12, 0.5])
def test_amounts_are_read_back(value: float) -> None:
    (budget,) = resolve_budgets(f"params={write_amount(value)}", ANALYSIS)
    assert budget.limit == round(value)


def test_a_request_is_read_once() -> None:
    requests = read_requests("params=0.5x, flops=1.2G")
    assert [item.amount for item in requests] == [Relative(0.5), Absolute(1.2e9)]
    assert read_requests(requests) == requests
    assert read_requests([requests[0], "flops=1.2G"]) == requests
    with pytest.raises(UsageError, match="both limit params"):
        read_requests([requests[0], "params"])


def test_a_plan_states_the_limit_that_it_was_asked_for() -> None:
    (budget,) = resolve_budgets("params=0.3333x", ANALYSIS)
    edited = Budget("params", 77.5, budget.text)
    assert BudgetRequest.of(budget).resolve(ANALYSIS.params) == budget
    assert BudgetRequest.of(edited).resolve(ANALYSIS.params) == edited


def test_a_limit_that_overflows_is_refused() -> None:
    with pytest.raises(UsageError, match="not finite"):
        BudgetRequest.parse("params=1e308x").resolve(1000)
