"""``cerewrite assess``: a converted model's members on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import cerewrite
from cerewrite.api import saving
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.command import Command
from cerewrite.cli.session import Session, write_text
from cerewrite.frontend import loading
from cerewrite.ir.assessed import Assessment


@click.command(cls=Command)
@click.argument("folder")
@click.option(
    "--data",
    required=True,
    metavar="MODULE:FUNCTION",
    help="Gives batches (inputs, classes): data.py:test or package.module:function.",
)
@click.option(
    "--calibration",
    metavar="MODULE:FUNCTION",
    help="Gives batches on which the temperature is fitted first.",
)
@opt.INPUT
@files.json_option("the assessment", lambda: Assessment)
@opt.OPENING
@files.file_option("--html", "Write the assessment as one HTML page.")
@files.FORCE
@opt.RUN
def assess(
    folder: str,
    data: str,
    calibration: str | None,
    json: str | None,
    html: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Assess a classifier's members on labelled data.

    FOLDER is one that convert --members wrote, with the weights that training put there. Prints
    loss, calibration, how members disagree, and accuracy against coverage.
    """
    session = Session.start(options, json, html, force=force)
    saving.read_plan(Path(folder))
    batches = loading.load_batches(data)
    fitting = None if calibration is None else loading.load_batches(calibration)
    _, model, inputs = session.load_target(folder, options)
    with session.clock("assess"):
        found = cerewrite.assess(model, batches, calibration=fitting, example_inputs=inputs)
    session.keep(json, found)
    from cerewrite import reporter

    if html:
        write_text(html, reporter.render_assessment(found), force=force)
    if not session.quiet:
        reporter.print_assessment(found, session.console())
