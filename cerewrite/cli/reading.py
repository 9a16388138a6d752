"""Values of options, read: shapes, budgets, designs, members."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from cerewrite.frontend.loading import InputShape, parse_input_shape
from cerewrite.initialisers import INITIALISERS
from cerewrite.planning.budgets import BudgetRequest, read_allowances, read_requests

Given = dict[str, Any]
"""Options as click hands them to a command."""


def read_shapes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    """Shapes of inputs."""
    return tuple(parse_input_shape(value) for value in values)


def read_budgets(
    ctx: click.Context, parameter: click.Parameter, value: str | tuple[str, ...]
) -> tuple[BudgetRequest, ...]:
    """Budgets as requests; a callback of options."""
    return read_requests(value)


def read_allowed(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Costs that may rise, read once so that a wrong one is refused before any work."""
    read_allowances(value)
    return value


def read_initialiser(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """The registered name of an initialiser."""
    return INITIALISERS[value].name


def read_designs(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Designs by region; the last ``=`` divides, because names of modules may hold one."""
    held: dict[str, str] = {}
    for value in values:
        region, separator, design = value.rpartition("=")
        if not separator or not region:
            raise click.BadParameter(f"'{value}' is not REGION=MxW[,W...]")
        if region in held:
            raise click.BadParameter(f"region '{region}' is fixed twice")
        held[region] = design
    return held


def read_members(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of members; they reach from input to output unless another scope was asked for."""
    if value is None:
        return None
    from cerewrite.planning.members import parse_members

    return parse_members(value)


def take_scope(options: Given) -> None:
    """Members that can be asked reach from input to output, unless another scope was asked for."""
    source = click.get_current_context().get_parameter_source("scope")
    if options.get("members") is not None and source is ParameterSource.DEFAULT:
        options["scope"] = "network"
