"""``cerewrite diagnose``: what theory says about a model's trainability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import cerewrite
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.command import Command
from cerewrite.cli.session import Session, write_text
from cerewrite.errors import LoadError, UsageError
from cerewrite.frontend import loading
from cerewrite.ir.diagnosed import DRAWS, Diagnosis

if TYPE_CHECKING:
    from torch import nn


@click.command(cls=Command)
@click.argument("model", required=False)
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Two models or folders side by side; one folder twice: its original and what was made.",
)
@click.option(
    "--data",
    metavar="MODULE:FUNCTION",
    help="Gives batches (inputs, targets), of which the first is taken: data.py:train.",
)
@opt.switch("--gaussian", description="Standard normal inputs and random classes, without data.")
@opt.number(
    "--draws",
    f"Draws of the weights; 0 for the weights as they stand.  [default: {DRAWS}]",
    least=0,
)
@opt.repeatable("--only", "only", "NAME", "A diagnostic; see `cerewrite list`. All without.")
@opt.INPUT
@files.json_option("the diagnosis, or both,", lambda: tuple[Diagnosis, ...])
@files.file_option("--html", "Write the diagnosis as one HTML page.")
@click.option("--original", metavar="MODEL", help="A folder's original, where it is not run.")
@opt.switch("--trust", description="Run a folder's model_ce.py to build its original.")
@opt.MAX_PARAMS
@files.FORCE
@opt.RUN
def diagnose(
    model: str | None,
    compare: tuple[str, str] | None,
    data: str | None,
    gaussian: bool,
    json: str | None,
    html: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Say what theory says of a model's trainability.

    MODEL is a model or an output folder. Prints every registered diagnostic with its error over
    draws of the weights, what it cost, and how it ordered the designs of docs/REFEREE.md.
    """
    if (model is None) == (compare is None):
        raise click.UsageError("name one MODEL, or two with --compare A B")
    if data is not None and gaussian:
        raise click.UsageError("--data and --gaussian exclude each other")
    session = Session.start(options, json, html, force=force)
    batch = None if data is None else first_batch(data)
    opening = {"model": options.pop("original")} | {
        name: options.pop(name) for name in ("trust", "max_params")
    }
    asked = _options(options, gaussian=gaussian)
    found = tuple(
        _diagnose(session, module, inputs, batch, asked)
        for module, inputs in _targets(session, model, compare, opening)
    )
    names = _names(compare) if compare else ()
    session.keep(json, found)
    _show(session, found, names, html)


def _options(options: Mapping[str, Any], *, gaussian: bool) -> dict[str, Any]:
    draws = options["draws"]
    return {
        "draws": DRAWS if draws is None else draws,
        "seed": options["seed"],
        "only": options["only"],
        "data": "gaussian" if gaussian else "shapes",
    }


def _targets(
    session: Session,
    model: str | None,
    compare: tuple[str, str] | None,
    opening: dict[str, Any],
) -> Iterable[tuple[nn.Module, loading.Inputs]]:
    """The models to look at with their example inputs."""
    if compare is None:
        assert model is not None
        _, made, inputs = session.load_target(model, opening)
        yield made, inputs
    elif compare[0] == compare[1]:
        original, made, inputs = session.load_target(compare[0], opening)
        yield original, inputs
        yield made, inputs
    else:
        for target in compare:
            folder = Path(target).is_dir()
            given = opening if folder else {"model": None, "trust": False, "max_params": None}
            _, made, inputs = session.load_target(target, given)
            yield made, inputs


def _names(compare: tuple[str, str]) -> tuple[str, str]:
    return ("original", "rewritten") if compare[0] == compare[1] else compare


def _diagnose(
    session: Session,
    module: nn.Module,
    inputs: loading.Inputs,
    batch: tuple[Any, Any] | None,
    asked: dict[str, Any],
) -> Diagnosis:
    with session.clock("diagnose"):
        if batch is None:
            return cerewrite.diagnose(module, inputs, **asked)
        return cerewrite.diagnose(module, batch[0], batch[1], **asked | {"data": "given"})


def first_batch(spec: str) -> tuple[Any, Any]:
    """Inputs and targets of the first batch that a function of a file or module gives.

    Raises:
        LoadError: see `cerewrite.frontend.loading.load_batches`; or if there is no batch.
        UsageError: if it is no pair.
    """
    batches = loading.load_batches(spec)
    try:
        batch = next(iter(batches))
    except StopIteration:
        raise LoadError(f"{spec}: gives no batch", advice="give at least one") from None
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UsageError(
            f"{spec}: gives a {type(batch).__name__} as a batch",
            advice="give pairs (inputs, targets); targets None for inputs alone",
        )
    return batch[0], batch[1]


def _show(
    session: Session, found: tuple[Diagnosis, ...], names: tuple[str, ...], html: str | None
) -> None:
    from cerewrite import reporter

    if html:
        write_text(html, reporter.render_diagnosis(found, names), force=session.force)
    if session.quiet:
        return
    if len(found) == 2:
        pair, called = (found[0], found[1]), (names[0], names[1])
        reporter.print_compared_diagnoses(pair, called, session.console())
    else:
        reporter.print_diagnosis(found[0], session.console(), verbose=session.verbose)
