"""Budgets as users write them: ``params``, ``params=0.5x``, ``flops=1.2G``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields

from cerewrite.budgets.base import BUDGETS, Cost
from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Budget, Figures

TRAINING_BATCH = 32
"""Examples per step of a memory budget where nobody says."""

SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)((?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)")
_ADVICE = "write for example params, params=0.5x, params=10M or flops=1.2G"


def parse_budgets(request: str | Sequence[str], analysis: Analysis) -> tuple[Budget, ...]:
    """Read one or several budgets; all of them must hold.

    Args:
        request: one budget, several with commas between them, or a sequence of either. A bare
            name (or ``=equal``) means the original model's cost, a number with ``x`` a
            multiple of it, any other number the cost itself, with k, M, G or T for 1e3 to 1e12.
        analysis: the model that relative budgets refer to.

    Returns:
        At least one budget, in the order of the request.

    Raises:
        UsageError: if a budget cannot be read, names an unknown cost, or limits a cost that
            another one limits.
    """
    texts = [request] if isinstance(request, str) else list(request)
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not parts or not all(parts):
        raise UsageError(
            "no budget was given" if not any(parts) else "empty budget in the list", advice=_ADVICE
        )
    budgets: dict[str, Budget] = {}
    for part in parts:
        budget = _parse(part, analysis)
        if budget.cost in budgets:
            first = budgets[budget.cost].text
            raise UsageError(
                f"budgets '{first}' and '{part}' both limit {budget.cost}",
                advice="keep one of the two",
            )
        budgets[budget.cost] = budget
    return tuple(budgets.values())


def needs_times(request: str | Sequence[str]) -> bool:
    """Whether a request names a cost that needs times measured on this machine.

    Example:
        >>> needs_times("params=0.5x"), needs_times(["params", "latency=1.0x"])
        (False, True)
    """
    return any(cost.timed for cost in _costs(request))


def needs_kept(request: str | Sequence[str]) -> bool:
    """Whether a request names a cost that needs what training keeps of the forward pass.

    Example:
        >>> needs_kept("params=0.5x"), needs_kept(["params", "memory=2GB"])
        (False, True)
    """
    return any(cost.keeps for cost in _costs(request))


def _costs(request: str | Sequence[str]) -> list[Cost]:
    texts = [request] if isinstance(request, str) else list(request)
    names = {part.partition("=")[0].strip() for text in texts for part in text.split(",")}
    return [BUDGETS[name] for name in sorted(names) if name in BUDGETS]


def _parse(text: str, analysis: Analysis) -> Budget:
    name, separator, amount = (piece.strip() for piece in text.partition("="))
    cost = BUDGETS[name]
    baseline = cost.baseline(analysis)
    stated = cost.timed or name in {field.name for field in fields(Figures)}
    before = 0 if stated else baseline
    if not separator or amount == "equal":
        return Budget(name, float(baseline), text, before)
    number, unit = _read_amount(amount, text, cost)
    known = {**SUFFIXES, **cost.units}
    limit = number * (baseline if unit == "x" else known[unit])
    if not math.isfinite(limit):
        raise UsageError(f"budget '{text}' is not finite", advice=_ADVICE)
    return Budget(name, float(round(limit)) if unit != "x" else limit, text, before)


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
    """An amount that `parse_budgets` reads back exactly.

    Example:
        >>> write_amount(1234567.0)
        '1234567'
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))
