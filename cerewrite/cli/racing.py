"""``cerewrite race``: the model and the menu's plans, trained in turns on the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import cerewrite
from cerewrite import output
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.analysing import UNTIMED
from cerewrite.cli.command import Command
from cerewrite.cli.numbers import Positive
from cerewrite.cli.reading import take_scope
from cerewrite.cli.session import Session, write_text
from cerewrite.errors import UsageError
from cerewrite.frontend import loading
from cerewrite.ir.raced import Race

BATCHED = ("latency_batch", "memory_batch", "step_batch", "profile")
"""Options of a plan that a race has no use for: its own batch is what is timed."""


def read_rates(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...]:
    """Learning rates with commas between them."""
    try:
        return tuple(float(item) for item in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"'{value}' is not RATE,RATE,...") from None


DATA = click.option(
    "--data",
    metavar="MODULE:FUNCTION",
    help="Gives (inputs, targets) or batches of them.  [default: MODEL's training_data()]",
)

RACE = opt.together(
    click.option(
        "--test",
        metavar="MODULE:FUNCTION",
        help="Gives held-out data.  [default: MODEL's test_data(), else a fifth of the data]",
    ),
    click.option(
        "--loss",
        metavar="MODULE:FUNCTION",
        help="Of outputs and targets, or makes one.  [default: MODEL's loss()]",
    ),
    click.option(
        "--seconds",
        type=Positive(),
        default=600.0,
        show_default=True,
        help="Time of the race, without the analysis; runs that are resumed add up.",
    ),
    opt.number("--seeds", "Trainings of each finalist.", default=5, least=2),
    opt.number("--steps", "Steps of the baseline in the finals.  [default: as time allows]"),
    click.option(
        "--rates",
        metavar="RATE,...",
        callback=read_rates,
        help="Learning rates to try.  [default: four of the optimiser's own]",
    ),
    opt.choice(
        "--optimiser", ("adamw", "adam", "sgd"), "sgd has momentum 0.9.", default="adamw"
    ),
    opt.number("--batch", "Examples per step, of data that are tensors.", default=32),
    opt.choice(
        "--by", ("seconds", "steps"), "Least held-out loss at equal seconds or steps wins.",
        default="seconds",
    ),
    opt.number("--finalists", "Designs in the finals besides the baseline.", default=2),
    click.option(
        "--records",
        type=click.Path(),
        metavar="FOLDER",
        help="Where results are kept and gone on from.  [default: NAME.race]",
    ),
    stage="Race",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("model")
@DATA
@RACE
@opt.INPUT
@UNTIMED
@opt.PLAN
@opt.DRAWING
@files.folder_option(required=False)
@files.json_option("the race", lambda: Race)
@files.file_option("--html", "Write the race as one HTML page with its curves.")
@files.FORCE
@opt.RUN
def race(
    model: str,
    data: str | None,
    test: str | None,
    loss: str | None,
    records: str | None,
    out: str | None,
    json: str | None,
    html: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Train the model and the menu's plans in turns.

    Prints losses and accuracy at equal steps and at equal seconds; --out writes the winner as
    convert does. A race that was stopped or killed goes on from its records.
    """
    from cerewrite.api.racing import write_winner

    take_scope(options)
    session = Session.start(options, json, html, force=force)
    if out is not None:
        output.check_target(out, folder=True, overwrite=force)
    for name in BATCHED:
        if options.pop(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} has no use in a race", advice="its --batch is what is timed")
    with session.clock("load"):
        loaded = loading.load(model, seed=session.seed)
        given = _given(loaded.spec, data, test, loss)
    inputs = None
    if session.shapes or loaded.example_inputs is not None:
        inputs = session.inputs(loaded.example_inputs, model)
    raced = cerewrite.race(
        example_inputs=inputs,
        records=records or f"{Path(loaded.spec.partition(':')[0]).stem}.race",
        clock=session.clock,
        tell=session.tell,
        **given,
        **options,
    )
    session.keep(json, raced.race)
    from cerewrite import reporter

    if html:
        write_text(html, reporter.render_race(raced.race), force=force)
    if not session.quiet:
        reporter.print_race(raced.race, session.console())
    if out is not None:
        write_winner(
            raced, loaded.module, out, overwrite=force, source=loaded.spec,
            clock=session.clock,
        )  # fmt: skip
        session.say(f"\nwritten to {out}")


def _given(spec: str, data: str | None, test: str | None, loss: str | None) -> dict[str, Any]:
    """The model's factory, its data and its loss: the file's own, or those that are named."""
    from cerewrite.frontend.loading import load_batches, split_spec
    from cerewrite.frontend.loading.hooks import DATA, TEST, Home

    home = Home.of(spec)
    held = load_batches(test) if test else home.data(TEST, needed=False) if not data else None
    return {
        "model": home.factory(split_spec(spec)[1]),
        "data": load_batches(data) if data else home.data(DATA),
        "test": held,
        "loss": Home.of(loss).loss(split_spec(loss)[1]) if loss else home.loss(),
    }
