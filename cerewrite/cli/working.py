"""What the commands have in common: plan, convert, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

import cerewrite
from cerewrite import ir, output
from cerewrite.api.options import PlanOptions
from cerewrite.cli.analysing import ANALYSIS_NAMES
from cerewrite.cli.command import ORIGINS
from cerewrite.cli.reading import Given
from cerewrite.cli.session import Session
from cerewrite.errors import InfeasibleBudgetError
from cerewrite.frontend import loading
from cerewrite.planning.budgets import batches_for


def make_plan(session: Session, model: str, options: Given) -> ir.Plan:
    """Analyse a model and choose its members and widths.

    Raises:
        CerewriteError: see `cerewrite.analyze` and `cerewrite.plan`.
    """
    ours = {name: options.pop(name) for name in ANALYSIS_NAMES}
    from cerewrite.api.menu import choose, profiled

    latency, memory, step = (options.pop(f"{kind}_batch") for kind in ("latency", "memory", "step"))
    batches = batches_for(options["budget"], latency, memory, step, options["allow"])
    profile, pick = options.pop("profile"), options.pop("pick")
    if profile is not None:
        batches["step_batch"] = None
    ours |= {"seed": options["seed"], **batches}
    analysis = session.analyze(model, ours)
    if profile is not None:
        analysis = profiled(analysis, profile)
    with session.clock("plan"):
        return choose(analysis, pick, cast(PlanOptions, options))[0]


def carry_out(
    session: Session,
    loaded: loading.Loaded,
    inputs: loading.Inputs,
    *,
    json: str | None,
    **options: Any,
) -> cerewrite.Conversion:
    """Convert a model that was loaded, and write its report as JSON if a file is named.

    Raises:
        CerewriteError: see `cerewrite.convert`.
    """
    result = cerewrite.convert(
        loaded.module, inputs, source=loaded.spec, clock=session.clock, **options
    )
    session.keep(json, result.report)
    return result


def next_steps(model: str, out: str | None, *, timed: bool) -> tuple[str, ...]:
    """What to do after a conversion, as commands; ``timed`` is whether both models were."""
    if out is None:
        return (f"cerewrite convert {model} --out DIR  # write it",)
    train = "train it: build_model() of " + str(Path(out) / output.MODULE)
    return (train,) if timed else (train, f"cerewrite bench {out}  # time both models")


def require_held(forecast: ir.Forecast | None) -> None:
    """A limit on time that the built model does not keep ends the run as a budget does.

    Raises:
        InfeasibleBudgetError: if it was measured not to hold; what was built stays written.
    """
    if forecast is not None and not forecast.held:
        raise InfeasibleBudgetError(
            f"the {forecast.cost} budget is not held: {forecast.measured.ratio:.3f}x of the "
            f"original's time was measured, at most {forecast.asked:.3f}x was asked for",
            advice="ask for more time, or run again when the machine is idle; what was written "
            "is verified, and its report says this",
        )


def show(
    session: Session, record: ir.Analysis | ir.Plan | ir.Report, model: str, *then: str
) -> None:
    """Print what came of a command: the first screen of a plan or report, all of it with -v.

    Args:
        session: of the command.
        record: what came of it.
        model: spec of the model, for commands that are advised.
        then: what to do next, each with its command.
    """
    if session.quiet:
        return
    from cerewrite import reporter

    origins = click.get_current_context().meta.get(ORIGINS, ())
    if origins:
        session.say(f"options from {', '.join(origins)}")

    console, verbose = session.console(), session.verbose
    if isinstance(record, ir.Analysis):
        reporter.print_analysis(record, console, verbose=verbose)
        return
    if verbose and isinstance(record, ir.Plan):
        reporter.print_plan(record, console, verbose=True)
    elif verbose and isinstance(record, ir.Report):
        reporter.print_report(record, console, verbose=True)
    reporter.print_first_screen(record, console, model=model, then=then)
