"""The commands: each loads what it is given, calls one verb, prints what came of it."""

from __future__ import annotations

from typing import Any, cast

import click

import cerewrite
from cerewrite import ir, output
from cerewrite.api.options import PlanOptions
from cerewrite.cli import options as opt
from cerewrite.cli.analysing import ANALYSIS, ANALYSIS_NAMES
from cerewrite.cli.assessing import assess
from cerewrite.cli.exporting import (
    ONNX,
    TRITON,
    WANTED,
    Repository,
    export,
    members_option,
    onnx_request,
)
from cerewrite.cli.folders import bench, profile, verify
from cerewrite.cli.group import Group
from cerewrite.cli.mapping import landscape
from cerewrite.cli.reading import Given, take_scope
from cerewrite.cli.session import Session, check_file, write_text
from cerewrite.errors import InfeasibleBudgetError
from cerewrite.frontend import loading
from cerewrite.planning.budgets import batches_for

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(cerewrite.__version__, prog_name="cerewrite")
def main() -> None:
    """Rewrite runs of wide PyTorch layers into collegial ensembles.

    MODEL is path/model.py, path/model.py:factory or package.module:factory. Exit codes: 0 done,
    2 usage, 3 load, 4 trace, 5 analysis, 6 plan, 7 rewrite, 8 verification, 9 export, 10 output,
    11 training, 12 target taken, 13 memory.
    """


@main.command()
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.file_option("--json", "Write the analysis as JSON; - for standard output.")
@opt.file_option("--html", "Write the analysis as one HTML page.")
@opt.FORCE
@opt.RUN
def analyze(model: str, json: str | None, html: str | None, force: bool, **options: Any) -> None:
    """Compute nu, layer by layer."""
    session = Session.start(options, silent=json == "-")
    for path in (json, html):
        check_file(path, force=force)
    analysis = session.analyze(model, options)
    if json:
        write_text(json, ir.dumps(analysis), force=force)
    if html:
        from cerewrite import reporter
        from cerewrite.api import saving

        report = ir.Report(analysis, seconds=session.clock.seconds, versions=saving.versions())
        write_text(html, reporter.render_html(report), force=force)
    _print(session, analysis)


@main.command()
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.PLAN
@opt.DRAWING
@opt.file_option("--out", "Write the plan as JSON; - for standard output.")
@opt.FORCE
@opt.RUN
def plan(model: str, out: str | None, force: bool, **options: Any) -> None:
    """Choose members and widths; change nothing."""
    take_scope(options)
    session = Session.start(options, silent=out == "-")
    check_file(out, force=force)
    made = _plan(session, model, options)
    if out:
        write_text(out, ir.dumps(made), force=force)
    _print(session, made)


@main.command()
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.PLAN
@opt.DRAWING
@opt.CALIBRATION
@opt.MAX_PARAMS
@opt.folder_option(required=False)
@WANTED
@ONNX
@members_option("--onnx-members")
@TRITON
@opt.switch("--bench", description="Time both models; the report shows it.")
@opt.BENCH
@opt.switch("--unchanged", description="Write DIR even if nothing changes.")
@opt.switch("--dry-run", description="Plan only; change and write nothing.")
@opt.FORCE
@opt.RUN
def convert(
    model: str,
    out: str | None,
    onnx: bool,
    triton: str | None,
    name: str | None,
    bench: bool,
    dry_run: bool,
    force: bool,
    **options: Any,
) -> None:
    """Plan, rewrite, verify, export and save.

    Writes DIR with plan.json, model.safetensors, model_ce.py, report.json and report.html, and
    model.onnx on request.
    """
    if onnx and out is None and not dry_run:
        raise click.UsageError("--onnx needs --out DIR: the folder that will hold model.onnx")
    take_scope(options)
    session = Session.start(options)
    if out is not None:
        output.check_target(out, folder=True, overwrite=force)
    request = onnx_request(options)
    asked = {name: options.pop(name) for name in opt.BENCH_NAMES}
    if dry_run:
        del options["calibration"], options["max_params"], options["unchanged"]
        _print(session, _plan(session, model, options))
        session.say("\ndry run: nothing was changed or written")
        return
    loaded, inputs = session.load(model)
    repository = Repository.of(triton, name, loaded.module, force=force)
    result = _convert(
        session,
        loaded,
        inputs,
        out=out,
        overwrite=force,
        onnx=request if onnx else False,
        bench=asked if bench else False,
        progress=session.progress,
        **options,
    )
    if repository is not None:
        repository.write(session, result.model, inputs, **request)
    if out or repository is None:
        session.say(f"\nwritten to {out}" if out else "\nnothing was written: no --out was given")
    _require_held(result.report.forecast)


@main.command()
@click.argument("plan")
@click.argument("model")
@opt.INPUT
@opt.CALIBRATION
@opt.MAX_PARAMS
@opt.folder_option(required=True)
@WANTED
@ONNX
@members_option("--onnx-members")
@opt.FORCE
@opt.RUN
def apply(plan: str, model: str, out: str, onnx: bool, force: bool, **options: Any) -> None:
    """Apply a plan file to its model.

    The plan may have been edited. The result is verified and saved as by convert.
    """
    from pathlib import Path

    session = Session.start(options)
    request = onnx_request(options)
    output.check_target(out, folder=True, overwrite=force)
    made = output.read_record(ir.Plan, Path(plan))
    loaded, inputs = session.load(model)
    _convert(
        session,
        loaded,
        inputs,
        plan=made,
        out=out,
        overwrite=force,
        onnx=request if onnx else False,
        calibration=options["calibration"],
        max_params=options["max_params"],
    )
    session.say(f"\nwritten to {out}")


main.add_command(assess)
main.add_command(export)
main.add_command(landscape)
main.add_command(profile)
main.add_command(verify)
main.add_command(bench)


@main.command()
@click.argument("model")
@click.argument("layer")
@opt.INPUT
@ANALYSIS
@opt.RUN
def explain(model: str, layer: str, **options: Any) -> None:
    """Say what is known about one layer.

    Prints its correction, its region and why its width was refused, if it was.
    """
    from cerewrite.cli.explaining import explained

    session = Session.start(options)
    for line in explained(session, model, layer, options):
        session.say(line)


@main.command(name="list")
def list_() -> None:
    """List operators, estimators, budgets, passes."""
    from cerewrite.cli.text import registry_lines

    for line in registry_lines():
        click.echo(line)


def _plan(session: Session, model: str, options: Given) -> ir.Plan:
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


def _convert(
    session: Session, loaded: loading.Loaded, inputs: loading.Inputs, **options: Any
) -> cerewrite.Conversion:
    """Convert a model that was loaded, and print the report."""
    result = cerewrite.convert(
        loaded.module, inputs, source=loaded.spec, clock=session.clock, **options
    )
    _print(session, result.report)
    return result


def _require_held(forecast: ir.Forecast | None) -> None:
    """A latency budget that the built model does not keep ends the run as a budget does.

    Raises:
        InfeasibleBudgetError: if it was measured not to hold; what was built stays written.
    """
    if forecast is not None and not forecast.held:
        raise InfeasibleBudgetError(
            f"the latency budget is not held: {forecast.measured.ratio:.3f}x of the original's "
            f"time was measured, at most {forecast.asked:.3f}x was asked for",
            advice="ask for more time, or run again when the machine is idle; what was written "
            "is verified, and its report says this",
        )


def _print(session: Session, record: ir.Analysis | ir.Plan | ir.Report) -> None:
    if session.quiet:
        return
    from cerewrite import reporter

    console, verbose = session.console(), session.verbose
    if isinstance(record, ir.Analysis):
        reporter.print_analysis(record, console, verbose=verbose)
    elif isinstance(record, ir.Plan):
        reporter.print_plan(record, console, verbose=verbose)
    else:
        reporter.print_report(record, console, verbose=verbose)
