"""Budgets as users write them, read once: ``params``, ``params=0.5x``, ``flops=1.2G``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from cerewrite.errors import UsageError
from cerewrite.ir import Budget, Figures
from cerewrite.planning.budgets.base import BUDGETS, Cost

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
    parts = split_requests(budget)
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


def split_requests(given: BudgetLike) -> list[str | BudgetRequest]:
    """What was asked for, one by one: text is split at commas."""
    parts: list[str | BudgetRequest] = []
    for item in [given] if isinstance(given, str | BudgetRequest) else given:
        parts += [piece.strip() for piece in item.split(",")] if isinstance(item, str) else [item]
    return parts


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
