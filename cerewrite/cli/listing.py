"""Commands that need no model: what is registered, schemas, and the file of options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import click

from cerewrite import ir
from cerewrite.cli import files
from cerewrite.cli.command import verbs
from cerewrite.cli.configuration import FILE, as_text, template
from cerewrite.cli.presets import PRESETS
from cerewrite.cli.session import check_file, write_text
from cerewrite.errors import UsageError
from cerewrite.registry import suggest

KINDS = (
    "operators", "estimators", "budgets", "measures", "passes", "initialisers", "diagnostics",
    "presets",
)  # fmt: skip


def registered(kind: str | None) -> Iterator[ir.Registered]:
    """Every registered thing with its first docstring line; one kind's, or all."""
    from cerewrite.diagnostics import DIAGNOSTICS
    from cerewrite.estimators import ESTIMATORS
    from cerewrite.initialisers import INITIALISERS
    from cerewrite.ops import OPRULES
    from cerewrite.planning.budgets import BUDGETS
    from cerewrite.planning.measures import MEASURES
    from cerewrite.rewriting import PASSES

    kinds: tuple[Mapping[str, object], ...] = (
        OPRULES, ESTIMATORS, BUDGETS, MEASURES, PASSES, INITIALISERS, DIAGNOSTICS,
    )  # fmt: skip
    for title, registry in zip(KINDS[:-1], kinds, strict=True):
        for name, item in registry.items() if kind in (None, title) else ():
            of = item if isinstance(item, type) else type(item)
            yield ir.Registered(title, name, (inspect.getdoc(of) or "").partition("\n")[0])
    for name, preset in PRESETS.items() if kind in (None, "presets") else ():
        yield ir.Registered("presets", name, preset.purpose, tuple(_settings(preset.options)))


def _settings(options: tuple[tuple[str, object, str], ...]) -> Iterator[ir.Setting]:
    for option, value, why in options:
        made = as_text(value)
        values = tuple(made) if isinstance(made, list) else () if made is True else (made,)
        yield ir.Setting(option, values, why)


@click.command(name="list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@files.json_option("what is registered", lambda: tuple[ir.Registered, ...])
@files.FORCE
def list_(kind: str | None, json: str | None, force: bool) -> None:
    """List operators, estimators, budgets, measures, passes, initialisers, diagnostics, presets.

    `list presets` shows in full what --for NAME sets.
    """
    check_file(json, force=force)
    found = tuple(registered(kind))
    if json:
        write_text(json, ir.dumps(found), force=force)
    if json == "-":
        return
    title = ""
    for item in found:
        if item.kind != title:
            title = item.kind
            click.echo(f"{title}:")
        click.echo(f"  {item.name:<20} {item.text}".rstrip())
        for setting in item.settings if kind else ():
            for value in setting.value or ("",):
                click.echo(f"    {f'--{setting.option} {value}'.rstrip():<28} {setting.why}")


@click.command()
@click.option("--for", "preset", type=click.Choice(list(PRESETS)), help="Switch a preset on.")
@click.option("--out", type=click.Path(), metavar="FILE", default=FILE, help="File to write.")
@files.json_option("what was written", lambda: ir.Written)
@files.FORCE
def init(preset: str | None, out: str, json: str | None, force: bool) -> None:
    """Write a commented cerewrite.toml.

    Every verb that runs in its folder takes its options from it, unless the command line gives
    them.
    """
    for path in (out, json):
        check_file(path, force=force)
    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)
    text = template(verbs(root), preset)
    write_text(out, text, force=force)
    if json:
        write_text(json, ir.dumps(ir.Written(out, len(text.encode()))), force=force)
    if "-" not in (out, json):
        click.echo(f"written to {out}: take the # off what you want to set")


@click.command()
@click.argument("verb")
def schema(verb: str) -> None:
    """Print the JSON schema of what a verb's --json writes."""
    import json

    from cerewrite.ir.schema import json_schema

    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)
    written = {
        name: option.record
        for name, command in root.commands.items()
        for option in command.params
        if isinstance(option, files.JsonOption)
    }
    if verb not in written:
        raise UsageError(f"no verb '{verb}' writes JSON", advice=suggest(verb, written))
    click.echo(json.dumps(json_schema(written[verb]()), indent=2))
