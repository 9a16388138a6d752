"""The commands: each loads what it is given, calls one verb, prints what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import cerewrite
from cerewrite import ir, output
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.analysing import ANALYSIS
from cerewrite.cli.assessing import assess
from cerewrite.cli.diagnosing import diagnose
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
from cerewrite.cli.listing import init, list_, schema
from cerewrite.cli.mapping import landscape
from cerewrite.cli.racing import race
from cerewrite.cli.reading import take_scope
from cerewrite.cli.session import Session, write_text
from cerewrite.cli.working import carry_out, make_plan, next_steps, require_held, show

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
@opt.PRESET
@files.json_option("the analysis", lambda: ir.Analysis)
@files.file_option("--html", "Write the analysis as one HTML page.")
@files.file_option("--node-data", "Write layers' shares as node data of Google's Model Explorer.")
@files.FORCE
@opt.RUN
def analyze(
    model: str,
    json: str | None,
    html: str | None,
    node_data: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Compute nu, layer by layer."""
    session = Session.start(options, json, html, node_data, force=force)
    analysis = session.analyze(model, options)
    session.keep(json, analysis)
    if node_data:
        from cerewrite import reporter

        write_text(node_data, reporter.node_data(analysis), force=force)
    if html:
        from cerewrite import reporter
        from cerewrite.api import saving

        report = ir.Report(analysis, seconds=session.clock.seconds, versions=saving.versions())
        write_text(html, reporter.render_html(report), force=force)
    show(session, analysis, model)


@main.command()
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.PLAN
@opt.DRAWING
@files.file_option("--out", "Write the plan as JSON; - for standard output.")
@files.json_option("the plan", lambda: ir.Plan)
@files.FORCE
@opt.RUN
def plan(model: str, out: str | None, json: str | None, force: bool, **options: Any) -> None:
    """Choose members and widths; change nothing."""
    take_scope(options)
    session = Session.start(options, out, json, force=force)
    made = make_plan(session, model, options)
    for path in (out, json):
        session.keep(path, made)
    kept = out or "plan.json"
    first = () if out else (f"cerewrite plan {model} --out {kept}  # keep it; it may be edited",)
    show(session, made, model, *first, f"cerewrite apply {kept} {model} --out DIR")


@main.command()
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.PLAN
@opt.DRAWING
@opt.CALIBRATION
@opt.MAX_PARAMS
@files.folder_option(required=False)
@WANTED
@ONNX
@members_option("--onnx-members")
@TRITON
@opt.switch("--bench", description="Time both models; the report shows it.")
@opt.BENCH
@opt.switch("--unchanged", description="Write DIR even if nothing changes.")
@opt.switch("--dry-run", description="Plan only; change and write nothing.")
@files.REPORT
@files.FORCE
@opt.RUN
def convert(
    model: str,
    out: str | None,
    onnx: bool,
    triton: str | None,
    name: str | None,
    bench: bool,
    dry_run: bool,
    json: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Plan, rewrite, verify, export and save.

    Writes DIR with plan.json, model.safetensors, model_ce.py, report.json and report.html, and
    model.onnx on request.
    """
    if json and dry_run:
        raise click.UsageError("a dry run has no report: cerewrite plan MODEL --json FILE")
    if onnx and out is None and not dry_run:
        raise click.UsageError("--onnx needs --out DIR: the folder that will hold model.onnx")
    take_scope(options)
    session = Session.start(options, json, force=force)
    if out is not None:
        output.check_target(out, folder=True, overwrite=force)
    request = onnx_request(options)
    asked = {name: options.pop(name) for name in opt.BENCH_NAMES}
    if dry_run:
        del options["calibration"], options["max_params"], options["unchanged"]
        made = make_plan(session, model, options)
        show(session, made, model, f"cerewrite convert {model} --out DIR")
        session.say("dry run: nothing was changed or written")
        return
    loaded, inputs = session.load(model)
    repository = Repository.of(triton, name, loaded.module, force=force)
    result = carry_out(
        session,
        loaded,
        inputs,
        json=json,
        out=out,
        overwrite=force,
        onnx=request if onnx else False,
        bench=asked if bench else False,
        progress=session.progress,
        **options,
    )
    show(session, result.report, model, *next_steps(model, out, timed=bench))
    if repository is not None:
        repository.write(session, result.model, inputs, **request)
    if out or repository is None:
        session.say(f"written to {out}" if out else "nothing was written: no --out was given")
    require_held(result.report.forecast)


@main.command()
@click.argument("plan")
@click.argument("model")
@opt.INPUT
@opt.CALIBRATION
@opt.MAX_PARAMS
@files.folder_option(required=True)
@WANTED
@ONNX
@members_option("--onnx-members")
@files.REPORT
@files.FORCE
@opt.RUN
def apply(
    plan: str,
    model: str,
    out: str,
    onnx: bool,
    json: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Apply a plan file to its model.

    The plan may have been edited. The result is verified and saved as by convert.
    """
    session = Session.start(options, json, force=force)
    request = onnx_request(options)
    output.check_target(out, folder=True, overwrite=force)
    made = output.read_record(ir.Plan, Path(plan))
    loaded, inputs = session.load(model)
    result = carry_out(
        session,
        loaded,
        inputs,
        json=json,
        plan=made,
        out=out,
        overwrite=force,
        onnx=request if onnx else False,
        calibration=options["calibration"],
        max_params=options["max_params"],
    )
    show(session, result.report, model, *next_steps(model, out, timed=False))
    session.say(f"written to {out}")


main.add_command(assess)
main.add_command(diagnose)
main.add_command(export)
main.add_command(landscape)
main.add_command(profile)
main.add_command(race)
main.add_command(verify)
main.add_command(bench)


@main.command()
@click.argument("model")
@click.argument("layer")
@opt.INPUT
@ANALYSIS
@opt.PRESET
@files.json_option("what is known", lambda: ir.Explanation)
@files.FORCE
@opt.RUN
def explain(model: str, layer: str, json: str | None, force: bool, **options: Any) -> None:
    """Say what is known about one layer.

    Prints its correction, its region and why its width was refused, if it was.
    """
    from cerewrite.cli.explaining import explain_lines, explained

    session = Session.start(options, json, force=force)
    found = explained(session, model, layer, options)
    session.keep(json, found)
    for line in explain_lines(found):
        session.say(line)


for command in (init, list_, schema):
    main.add_command(command)
