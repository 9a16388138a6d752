"""Commands that look again: at what a folder holds, and at this machine's time."""

from __future__ import annotations

from typing import Any

import click

import cerewrite
from cerewrite import ir
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.analysing import ANALYSIS
from cerewrite.cli.command import Command
from cerewrite.cli.session import Session
from cerewrite.errors import VerificationError


@click.command(cls=Command)
@click.argument("model")
@opt.INPUT
@ANALYSIS
@opt.number("--step-batch", "Training batch of the steps.", default=32)
@opt.PRESET
@files.file_option("--out", "Write the times as JSON; - for standard output.")
@files.json_option("the times", lambda: ir.StepProfile)
@files.FORCE
@opt.RUN
def profile(model: str, out: str | None, json: str | None, force: bool, **options: Any) -> None:
    """Time training steps, layer by layer.

    Writes what `plan` and `convert` take as --profile, on this machine or another.
    """
    from cerewrite import timing

    session = Session.start(options, out, json, force=force)
    analysis = session.analyze(model, options)
    record = timing.step_profile(analysis)
    for path in (out, json):
        session.keep(path, record)
    first = record.regions[0].profile if record.regions else None
    where = f", {first.threads} threads, {first.machine}" if first else ""
    session.say(
        f"a training step of {record.model} at batch {options['step_batch']}: "
        f"{record.step / 1e6:.3g} ms, {len(record.regions)} regions timed{where}"
    )


@click.command(cls=Command)
@click.argument("folder")
@opt.OPENING
@opt.INPUT
@files.json_option("the checks", lambda: ir.Verification)
@files.FORCE
@opt.RUN
def verify(folder: str, json: str | None, force: bool, **options: Any) -> None:
    """Check the model in a folder.

    The folder is one that convert wrote; its weights are checked as they are now.
    """
    from pathlib import Path

    from cerewrite.api import saving
    from cerewrite.cli.text import check_lines

    session = Session.start(options, json, force=force)
    made = saving.read_plan(Path(folder))
    original, model, inputs = session.load_target(folder, options)
    with session.clock("verify"):
        verification = cerewrite.verify(original, model, made, inputs)
    session.keep(json, verification)
    for line in check_lines(verification):
        session.say(line)
    if not verification.passed:
        raise VerificationError(
            f"{folder}: {len(verification.failures)} of {len(verification.checks)} checks fail",
            advice="see the checks above; convert again if weights or plan were edited",
        )


@click.command(cls=Command)
@click.argument("folder")
@opt.OPENING
@opt.INPUT
@opt.BENCH
@opt.PRESET
@files.json_option("the timings", lambda: tuple[ir.Timing, ...])
@files.FORCE
@opt.RUN
def bench(folder: str, json: str | None, force: bool, **options: Any) -> None:
    """Time the model in a folder against its original.

    Runs take turns, so that a busy machine disturbs both alike; figures are medians with
    their interquartile ranges.
    """
    from cerewrite.cli.text import timing_lines

    asked = {name: options.pop(name) for name in opt.BENCH_NAMES}
    session = Session.start(options, json, force=force)
    original, model, inputs = session.load_target(folder, options)
    with session.clock("bench"):
        timings = cerewrite.bench(original, model, inputs, **asked)
    session.keep(json, timings)
    for line in timing_lines(timings):
        session.say(line)
