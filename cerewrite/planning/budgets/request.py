"""Budgets as users write them: ``params``, ``params=0.5x``, ``flops=1.2G``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Budget, Figures
from cerewrite.planning.budgets.base import BUDGETS, Cost

LATENCY_BATCH = 1
"""Examples per call of a latency budget where nobody says."""

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
    parts = [text for _, text in budget_parts(request)]
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


def budget_parts(request: str | Sequence[str]) -> list[tuple[str, str]]:
    """The cost that each budget of a request names, and its text; neither is checked.

    Example:
        >>> budget_parts(["params, latency = 2ms", "flops"])
        [('params', 'params'), ('latency', 'latency = 2ms'), ('flops', 'flops')]
    """
    texts = [request] if isinstance(request, str) else list(request)
    parts = [part.strip() for text in texts for part in text.split(",")]
    return [(part.partition("=")[0].strip(), part) for part in parts]


def batches_for(
    request: str | Sequence[str], latency: int | None = None, memory: int | None = None
) -> dict[str, int | None]:
    """The batches that an analysis needs for a request, as options of `cerewrite.analyze`.

    Args:
        request: budgets, as for `parse_budgets`.
        latency: examples per call that the user wants; else 1 if a budget needs times.
        memory: training batch that the user wants; else 32 if a budget needs one.

    Example:
        >>> batches_for("params,latency=1.0x"), batches_for("memory=2GB", memory=8)
        ({'latency_batch': 1, 'memory_batch': None}, {'latency_batch': None, 'memory_batch': 8})
    """
    costs = [BUDGETS[name] for name, _ in budget_parts(request) if name in BUDGETS]
    if latency is None and any(cost.timed for cost in costs):
        latency = LATENCY_BATCH
    if memory is None and any(cost.keeps for cost in costs):
        memory = TRAINING_BATCH
    return {"latency_batch": latency, "memory_batch": memory}


def _parse(text: str, analysis: Analysis) -> Budget:
    name, separator, amount = (piece.strip() for piece in text.partition("="))
    cost = BUDGETS[name]
    baseline = cost.baseline(analysis)
    before = 0 if name in {field.name for field in fields(Figures)} else baseline
    if not separator or amount == "equal":
        return Budget(name, float(baseline), text, before)
    number, unit = _read_amount(amount, text, cost)
    known = {**SUFFIXES, **cost.units}
    limit = number * (baseline if unit == "x" else known[unit])
    if cost.timed and not number:
        raise UsageError(f"budget '{text}': no call takes no time", advice=_ADVICE)
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
