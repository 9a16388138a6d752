"""What a request for a plan asks of the analysis before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from cerewrite.planning.budgets import batches_for


def check_budget(texts: Sequence[str]) -> None:
    """Refuse a budget that cannot be read, before the model is loaded and traced.

    Raises:
        UsageError: see `cerewrite.planning.budgets.parse_budgets`.
    """
    from cerewrite.ir import Analysis, Estimate
    from cerewrite.planning.budgets import parse_budgets

    nothing = Estimate(0.0, None, 0, "", "")
    measured = (nothing, nothing, nothing)
    parse_budgets(
        texts,
        Analysis("", "", "", "", "", "", *measured, (), (), (), 1, 1, "", (), latency=1, memory=1),
    )


def take_batches(options: dict[str, Any]) -> dict[str, int | None]:
    """The batches that latency and memory budgets need; taken out of the options."""
    latency, memory = options.pop("latency_batch", None), options.pop("memory_batch", None)
    return batches_for(options["budget"], latency, memory)


def take_scope(options: dict[str, Any]) -> None:
    """Members that can be asked reach from input to output, unless another scope was asked for."""
    source = click.get_current_context().get_parameter_source("scope")
    if options.get("members") is not None and source is ParameterSource.DEFAULT:
        options["scope"] = "network"
