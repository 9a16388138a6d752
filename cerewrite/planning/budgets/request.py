"""Budgets as users write them, read once: ``params``, ``params=0.5x``, ``flops=1.2G``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Budget, Figures
from cerewrite.planning.budgets.base import BUDGETS, Cost

LATENCY_BATCH = 1
"""Examples per call of a latency budget where nobody says."""

TRAINING_BATCH = 32
"""Examples per training step, of memory and of time, where nobody says."""

HELD = ("params", "flops", "memory", "step")
"""Costs that no plan raises above the original's unless it is named or allowed."""

SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)((?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)")
_ADVICE = "write for example params, params=0.5x, params=10M or flops=1.2G"


@dataclass(frozen=True, slots=True)
class Relative:
    """A multiple of the original model's cost."""

    share: float


@dataclass(frozen=True, slots=True)
class Absolute:
    """A cost in its own unit."""

    value: float


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """An upper limit on one cost, before the original model's cost is known.

    Attributes:
        cost: registered budget.
        amount: the limit, a multiple of the original's cost or a cost.
        text: the request as the user wrote it, for messages.
        aim: share of the limit that the search keeps below, at most 1; what was built is held
            against the limit.

    Example:
        >>> request = BudgetRequest.parse("params=0.5x")
        >>> request.amount, request.resolve(3000).limit
        (Relative(share=0.5), 1500.0)
        >>> request.tightened(0.9).resolve(3000).aim
        1350.0
    """

    cost: str
    amount: Relative | Absolute
    text: str
    aim: float = 1.0

    @classmethod
    def parse(cls, text: str) -> BudgetRequest:
        """Read one budget.

        Raises:
            UsageError: if it cannot be read, or names an unknown cost.
        """
        name, separator, amount = (piece.strip() for piece in text.partition("="))
        cost = BUDGETS[name]
        if not separator or amount == "equal":
            return cls(name, Relative(1.0), text)
        number, unit = _read_amount(amount, text, cost)
        if cost.timed and not number:
            raise UsageError(f"budget '{text}': no call takes no time", advice=_ADVICE)
        if unit == "x":
            return cls(name, Relative(_finite(number, text)), text)
        value = _finite(number * {**SUFFIXES, **cost.units}[unit], text)
        return cls(name, Absolute(float(round(value))), text)

    @classmethod
    def of(cls, budget: Budget) -> BudgetRequest:
        """The request for a limit that a plan states."""
        return cls(budget.cost, Absolute(budget.limit), budget.text)

    def resolve(self, baseline: int) -> Budget:
        """The limit for a model that costs ``baseline``.

        Raises:
            UsageError: if the limit overflows.
        """
        before = 0 if self.cost in {field.name for field in fields(Figures)} else baseline
        if isinstance(self.amount, Absolute):
            limit = self.amount.value
        else:
            limit = _finite(self.amount.share * baseline, self.text)
        target = round(self.aim * limit, 6) if self.aim < 1.0 else 0.0
        return Budget(self.cost, limit, self.text, before, target=target)

    def tightened(self, share: float) -> BudgetRequest:
        """The same limit, with the search kept below a share of it."""
        return replace(self, aim=min(share, 1.0))


BudgetLike = str | BudgetRequest | Sequence[str | BudgetRequest]
"""What a budget may be given as: one, several with commas between them, or a sequence."""


def read_requests(budget: BudgetLike) -> tuple[BudgetRequest, ...]:
    """One or several budgets, all of which must hold; what has been read is taken as it is.

    Args:
        budget: one budget, several with commas between them, or a sequence of either. A bare
            name (or ``=equal``) means the original model's cost, a number with ``x`` a
            multiple of it, any other number the cost itself, with k, M, G or T for 1e3 to 1e12.

    Returns:
        At least one request, in the order given.

    Raises:
        UsageError: if a budget cannot be read, names an unknown cost, or limits a cost that
            another one limits.

    Example:
        >>> [request.cost for request in read_requests(["params, latency = 2ms", "flops"])]
        ['params', 'latency', 'flops']
    """
    given = [budget] if isinstance(budget, str | BudgetRequest) else list(budget)
    parts: list[str | BudgetRequest] = []
    for item in given:
        parts += [piece.strip() for piece in item.split(",")] if isinstance(item, str) else [item]
    if not parts or not all(parts):
        raise UsageError(
            "empty budget in the list" if any(parts) else "no budget was given", advice=_ADVICE
        )
    requests: dict[str, BudgetRequest] = {}
    for part in parts:
        request = BudgetRequest.parse(part) if isinstance(part, str) else part
        if request.cost in requests:
            raise UsageError(
                f"budgets '{requests[request.cost].text}' and '{request.text}' both limit "
                f"{request.cost}",
                advice="keep one of the two",
            )
        requests[request.cost] = request
    return tuple(requests.values())


Allowed = str | BudgetRequest | Sequence[str | BudgetRequest]
"""Costs that may exceed the original's: ``all``, ``step``, ``flops=2x``, one or several."""


def read_allowances(allow: Allowed, named: Sequence[str] = ()) -> dict[str, BudgetRequest | None]:
    """What the costs that are held by themselves may rise to, by cost; None for anything.

    Args:
        allow: ``all``, the name of a held cost, or a cost with an amount as in a budget.
        named: costs that a budget limits.

    Raises:
        UsageError: if a cost is not held, or a budget names it.

    Example:
        >>> read_allowances("step"), sorted(read_allowances("all", ["params"]))
        ({'step': None}, ['flops', 'memory', 'step'])
    """
    given = [allow] if isinstance(allow, str | BudgetRequest) else list(allow)
    parts: list[str | BudgetRequest] = []
    for item in given:
        parts += [piece.strip() for piece in item.split(",")] if isinstance(item, str) else [item]
    found: dict[str, BudgetRequest | None] = {}
    for part in parts:
        if part == "all":
            found |= dict.fromkeys(cost for cost in HELD if cost not in named)
            continue
        request = BudgetRequest.parse(part) if isinstance(part, str) else part
        if request.cost not in HELD:
            raise UsageError(
                f"'{request.text}' is allowed, but nothing holds {request.cost}",
                advice=f"allow all, {', '.join(HELD)}, or one of these with an amount: flops=2x",
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
    allowed = read_allowances(allow, named)
    costs = HELD if held is None else held
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


def _finite(limit: float, text: str) -> float:
    if not math.isfinite(limit):
        raise UsageError(f"budget '{text}' is not finite", advice=_ADVICE)
    return limit


def _read_amount(amount: str, text: str, cost: Cost) -> tuple[float, str]:
    if amount.startswith("-"):
        raise UsageError(f"budget '{text}' is negative", advice=_ADVICE)
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        raise UsageError(f"budget '{text}' has no readable amount '{amount}'", advice=_ADVICE)
    number, unit = float(match[1].replace("_", "") + match[2]), match[3]
    if unit in cost.units:
        return number, unit
    unit = {"K": "k", "X": "x", "g": "G", "t": "T"}.get(unit, unit)
    if unit == "%":
        return number / 100.0, "x"
    if unit == "m":
        raise UsageError(f"budget '{text}': 'm' is not a unit", advice="write M for a million")
    if unit != "x" and unit not in SUFFIXES:
        raise UsageError(
            f"budget '{text}' has an unknown unit '{unit}'",
            advice=f"use {', '.join(['k, M, G, T', *cost.units])} or x",
        )
    return number, unit


def write_amount(value: float) -> str:
    """An amount that `BudgetRequest.parse` reads back exactly.

    Example:
        >>> write_amount(1234567.0)
        '1234567'
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))
