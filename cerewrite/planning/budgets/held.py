"""Costs that are held: what no budget names stays at the original's, or at what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Budget
from cerewrite.planning.budgets.base import BUDGETS
from cerewrite.planning.budgets.request import (
    BudgetLike,
    BudgetRequest,
    read_requests,
    split_requests,
)

LATENCY_BATCH = 1
"""Examples per call of a latency budget where nobody says."""

TRAINING_BATCH = 32
"""Examples per training step, of memory and of time, where nobody says."""

HELD = ("params", "flops", "memory", "step")
"""Costs that no plan raises above the original's unless it is named or allowed."""

Allowed = str | BudgetRequest | Sequence[str | BudgetRequest]
"""Costs that may exceed the original's: ``all``, ``step``, ``flops=2x``, one or several."""


def read_allowances(
    allow: Allowed, named: Sequence[str] = (), held: Sequence[str] | None = None
) -> dict[str, BudgetRequest | None]:
    """What the costs that are held by themselves may rise to, by cost; None for anything.

    Args:
        allow: ``all``, the name of a held cost, or a cost with an amount as in a budget.
        named: costs that a budget limits.
        held: the costs that are held; None for `HELD`.

    Raises:
        UsageError: if a cost is not held, or a budget names it.

    Example:
        >>> read_allowances("step"), sorted(read_allowances("all", ["params"]))
        ({'step': None}, ['flops', 'memory', 'step'])
    """
    costs = HELD if held is None else held
    found: dict[str, BudgetRequest | None] = {}
    for part in split_requests(allow):
        if part == "all":
            found |= dict.fromkeys(cost for cost in costs if cost not in named)
            continue
        request = BudgetRequest.parse(part) if isinstance(part, str) else part
        if request.cost not in costs:
            raise UsageError(
                f"'{request.text}' is allowed, but nothing holds {request.cost}",
                advice=f"allow all, {', '.join(costs)}, or one of these with an amount: flops=2x",
            )
        if request.cost in named:
            raise UsageError(
                f"'{request.text}' is allowed, but a budget limits {request.cost}",
                advice=f"say it once: --budget {request.cost}=2x",
            )
        bare = "=" not in request.text and request.aim == 1.0
        found[request.cost] = None if bare else request
    return found


def held_requests(
    budget: BudgetLike, allow: Allowed = (), held: Sequence[str] | None = None
) -> tuple[BudgetRequest, ...]:
    """Limits of the costs that no budget names: the original's, or what is allowed.

    Args:
        budget: see `read_requests`.
        allow: see `read_allowances`.
        held: the costs; None for `HELD`.

    Example:
        >>> [request.text for request in held_requests("params", ["flops=2x", "step"])]
        ['flops=2x', 'memory']
    """
    named = [request.cost for request in read_requests(budget)]
    costs = HELD if held is None else held
    allowed = read_allowances(allow, named, costs)
    requests = (BudgetRequest.parse(cost) for cost in costs if cost not in named)
    limits = (allowed.get(request.cost, request) for request in requests)
    return tuple(request for request in limits if request is not None)


def resolve_budgets(
    budget: BudgetLike,
    analysis: Analysis,
    allow: Allowed = "all",
    held: Sequence[str] | None = None,
) -> tuple[Budget, ...]:
    """The limits of a request for one model, those of held costs last.

    Args:
        budget: see `read_requests`.
        analysis: the model that relative budgets refer to.
        allow: held costs that may rise, see `read_allowances`. A cost that the analysis has not
            counted or timed is held only where it is allowed with an amount.
        held: costs that are held unless named; None for `HELD`.

    Raises:
        UsageError: see `read_requests`; or if the analysis lacks what a cost is counted from.
    """
    limits = [
        request.resolve(BUDGETS[request.cost].baseline(analysis))
        for request in read_requests(budget)
    ]
    for request in held_requests(budget, allow, held):
        cost = BUDGETS[request.cost]
        if "=" in request.text or cost.known(analysis):
            limits.append(replace(request.resolve(cost.baseline(analysis)), held=True))
    return tuple(limits)


def batches_for(
    budget: BudgetLike,
    latency: int | None = None,
    memory: int | None = None,
    step: int | None = None,
    allow: Allowed = (),
) -> dict[str, int | None]:
    """The batches that an analysis needs for a request, as options of `cerewrite.analyze`.

    Args:
        budget: see `read_requests`.
        latency: examples per call that the user wants; else 1 if a budget needs times.
        memory: training batch that the user wants; else 32.
        step: training batch of timed steps that the user wants; else that of ``memory`` if the
            step is limited or held.
        allow: see `read_allowances`.

    Example:
        >>> batches_for("params,latency=1.0x", allow="step")
        {'latency_batch': 1, 'memory_batch': 32, 'step_batch': None}
        >>> batches_for("params", memory=8)
        {'latency_batch': None, 'memory_batch': 8, 'step_batch': 8}
    """
    requests = (*read_requests(budget), *held_requests(budget, allow))
    costs = [BUDGETS[request.cost] for request in requests]
    memory = TRAINING_BATCH if memory is None else memory
    if latency is None and any(cost.timed for cost in costs):
        latency = LATENCY_BATCH
    if step is None and any(cost.trains for cost in costs):
        step = memory
    return {"latency_batch": latency, "memory_batch": memory, "step_batch": step}
