"""The landscape of one region: its designs as data and as a picture."""

from __future__ import annotations

from typing import Any

import click

from cerewrite import ir
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.analysing import ANALYSIS
from cerewrite.cli.command import Command
from cerewrite.cli.reading import read_budgets
from cerewrite.cli.session import Session, write_text
from cerewrite.errors import UsageError
from cerewrite.planning.budgets import BudgetRequest
from cerewrite.planning.landscape import Landscape
from cerewrite.registry import suggest


@click.command(cls=Command)
@click.argument("model")
@click.option("--region", required=True, metavar="NAME", help="The region; see analyze.")
@opt.INPUT
@ANALYSIS
@opt.repeatable(
    "--budget",
    "budget",
    "BUDGET",
    "The one limit of the whole model; all other regions stay as they are.",
    default=("params",),
    show_default=True,
    callback=read_budgets,
)
@opt.measure_option("What is mapped.")
@files.json_option("the landscape", lambda: Landscape)
@files.file_option("--html", "Write it as one HTML page with a picture.")
@files.FORCE
@opt.RUN
def landscape(
    model: str,
    region: str,
    budget: tuple[BudgetRequest, ...],
    measure: str,
    json: str | None,
    html: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Map a region's measure over members and widths.

    Widths keep their proportions; `plan` searches the others too.
    """
    from cerewrite import reporter
    from cerewrite.planning import landscape as map_region
    from cerewrite.planning.budgets import BUDGETS, batches_for, region_cost, resolve_budgets

    session = Session.start(options, json, html, force=force)
    if len(budget) > 1:
        raise UsageError("a landscape has one budget", advice="name one of them")
    analysis = session.analyze(model, options | batches_for(budget, allow="all"))
    chosen = _region(analysis, region)
    (allowed,) = resolve_budgets(budget, analysis)
    cost = allowed.cost
    own = region_cost(cost, chosen, chosen.design)
    limit = allowed.limit - BUDGETS[cost].baseline(analysis) + own
    mapped = map_region(chosen, cost=cost, measure=measure, limit=limit, rows=48)
    session.keep(json, mapped)
    if html:
        write_text(html, reporter.render_landscape(mapped), force=force)
    for line in reporter.landscape_lines(mapped):
        session.say(line)


def _region(analysis: ir.Analysis, name: str) -> ir.Region:
    """The region of that name.

    Raises:
        UsageError: if the analysis has none.
    """
    regions = {item.name: item.region for item in analysis.regions}
    regions |= {i.name: i.region for scope in analysis.scopes for i in scope.regions}
    if name not in regions:
        raise UsageError(
            f"{analysis.model} has no region '{name}' at scope '{analysis.scope}'",
            advice=suggest(name, dict.fromkeys(regions)) if regions else "see analyze",
        )
    return regions[name]
