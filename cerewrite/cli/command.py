"""A command whose defaults may come from a file or a preset, and whose help is by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from cerewrite.cli.configuration import FILE, as_text, flags, values_for
from cerewrite.cli.presets import PRESETS

FIRST = ("out", "preset", "budget", "pick", "onnx")
"""The options that matter first, in the order in which help shows them."""

ORIGINS = "cerewrite.origins"
"""Key of a context's ``meta``: where options came from that the command line does not give."""

MANY = 12
"""Options from which on help groups them."""

STAGE_OF: dict[str, str] = {"bench": "Timing", "member_outputs": "Export"}
"""Stage of an option, by the option's name; filled where options are declared. Others: output."""

DISPLACES: Mapping[str, str] = {"pick": "allow", "allow": "pick", "members": "scope"}
"""An option that is given takes another one's default away: the two exclude each other."""


class Command(click.Command):
    """A verb: options that are not given come from ``cerewrite.toml``, then from ``--for``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for defaults, then parse as click does.

        Raises:
            UsageError: if the file or a value in it is wrong.
        """
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            asked = self.get_help_option(ctx)
            if asked is None or asked.name not in given:
                ctx.default_map = self._defaults(ctx, given)
        return super().parse_args(ctx, args)

    def _defaults(self, ctx: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults by parameter name: a preset's, under the file's, without what is displaced."""
        root = ctx.find_root().command
        assert isinstance(root, click.Group), "a verb of the command line"
        file = values_for(self, verbs(root), ctx, Path(FILE))
        names = {flag: str(option.name) for flag, option in flags(self).items()}
        wanted = given.get("preset", file.get("preset"))
        preset = PRESETS[wanted].options if wanted in PRESETS else ()
        chosen = {names[flag]: as_text(value) for flag, value, _ in preset if flag in names}
        file = without(file, given)
        chosen = without(without(chosen, given), file)
        called = {name: flag for flag, name in names.items()}
        used = {
            FILE: {called[name] for name in file.keys() - given},
            f"--for {wanted}": {called[name] for name in chosen.keys() - given - file.keys()},
        }
        ctx.meta[ORIGINS] = tuple(
            f"{origin} ({', '.join(sorted(names))})" for origin, names in used.items() if names
        )
        return {**chosen, **file}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options by stage, those that matter first ahead of all others."""
        options = [item for item in self.get_params(ctx) if isinstance(item, click.Option)]
        if len(options) < MANY:
            super().format_options(ctx, formatter)
            return
        asked = self.get_help_option(ctx)
        groups: dict[str, list[click.Parameter]] = {"First": []}
        for option in sorted(options, key=lambda item: _place(FIRST, item.name)):
            first = option.name in FIRST
            known = "Run" if option is asked else STAGE_OF.get(str(option.name), "Output")
            stage = "First" if first else known
            groups.setdefault(stage, []).append(option)
        for title, members in groups.items():
            records = filter(None, (option.get_help_record(ctx) for option in members))
            if members:
                with formatter.section(title):
                    formatter.write_dl(list(records))


def verbs(group: click.Group) -> dict[str, click.Command]:
    """The commands that take options from the file."""
    return {name: item for name, item in group.commands.items() if isinstance(item, Command)}


def without(defaults: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Defaults less those that exclude something that was given."""
    gone = {DISPLACES[name] for name in given if name in DISPLACES}
    return {name: value for name, value in defaults.items() if name not in gone}


def _place(names: tuple[str, ...], name: str | None) -> int:
    return names.index(name) if name in names else len(names)
