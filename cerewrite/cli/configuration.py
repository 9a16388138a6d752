"""``cerewrite.toml``: options that every verb takes from the working directory."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cerewrite.errors import CerewriteError, UsageError
from cerewrite.registry import suggest

FILE = "cerewrite.toml"
"""Where options are looked for: in the working directory."""

Commands = Mapping[str, click.Command]


def flags(command: click.Command) -> dict[str, click.Option]:
    """Options of a command by their long flag without dashes; ``--help`` is none."""
    return {
        flag.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for flag in option.opts
        if flag.startswith("--")
    }


def as_text(value: Any) -> Any:
    """A value as the command line would give it: text, or a switch.

    Example:
        >>> as_text(0.5), as_text([1, 2]), as_text(True)
        ('0.5', ['1', '2'], True)
    """
    if isinstance(value, bool):
        return value
    return [str(item) for item in value] if isinstance(value, list) else str(value)


def values_for(
    command: click.Command, commands: Commands, ctx: click.Context, path: Path
) -> dict[str, Any]:
    """What the file sets for one command, by parameter name; {} without a file.

    Keys before the first table hold for every verb that has the option, those of ``[VERB]`` for
    that verb, and these win.

    Args:
        command: the command.
        commands: every verb, for the names that the file may hold.
        ctx: the command's context, for the options' own checks.
        path: the file.

    Raises:
        UsageError: if the file cannot be read, or holds an unknown name or a wrong value.
    """
    data = _read(path)
    tables = {name: item for name, item in data.items() if isinstance(item, dict)}
    shared = {name: item for name, item in data.items() if not isinstance(item, dict)}
    for name, table in tables.items():
        if name not in commands:
            raise UsageError(f"{path}: no verb '{name}'", advice=suggest(name, dict(commands)))
        for key in table:
            _known(path, f"[{name}] ", key, flags(commands[name]))
    for key in shared:
        _known(path, "", key, {k: v for verb in commands.values() for k, v in flags(verb).items()})
        _one_meaning(path, key, commands)
    own = flags(command)
    found: dict[str, Any] = {}
    for table, where in ((shared, ""), (tables.get(str(command.name), {}), f"[{command.name}] ")):
        for key, value in table.items():
            if key in own:
                checked = _checked(f"{path}: {where}{key}", own[key], value, ctx)
                found[str(own[key].name)] = checked
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", advice="make it a readable file, or move it away"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path}: no TOML: {error}", advice="mend the line, or see cerewrite init"
        ) from None


def _known(path: Path, where: str, key: str, options: Mapping[str, click.Option]) -> None:
    if key not in options:
        near = suggest(key, dict(options)).partition(" (choices")[0]
        listed = near if near.startswith("did you mean") else "see cerewrite init"
        raise UsageError(f"{path}: {where}no option '{key}'", advice=listed)


def _one_meaning(path: Path, key: str, commands: Commands) -> None:
    """A key that holds for several verbs must mean the same to all of them."""
    if not shared_by(key, commands):
        having = ", ".join(f"[{name}]" for name, item in commands.items() if key in flags(item))
        raise UsageError(
            f"{path}: '{key}' means something else to each verb",
            advice=f"put it under one of {having}",
        )


def shared_by(key: str, commands: Commands) -> bool:
    """Whether an option means the same to every verb that has it, and names no file or verb."""
    having = [flags(item)[key] for item in commands.values() if key in flags(item)]
    kinds = {(item.name, item.multiple, item.is_flag, str(item.metavar)) for item in having}
    return len(kinds) == 1 and key not in OWN and key not in commands


OWN = ("out", "json", "html", "force")
"""Options that name or replace a verb's own output, and never hold for several verbs."""


def _checked(what: str, option: click.Option, value: Any, ctx: click.Context) -> Any:
    """A value of the file as the command line would give it, read once by the option's rules.

    Raises:
        UsageError: if the option does not take it.
    """
    single = (str, int, float, bool)
    if option.is_flag and not isinstance(value, bool):
        raise UsageError(f"{what} is {value!r}", advice="a switch is true or false")
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, single) for item in items):
        raise UsageError(f"{what} is {value!r}", advice="give text, numbers, or an array of them")
    if not option.is_flag and any(isinstance(item, bool) for item in items):
        raise UsageError(f"{what} is {value!r}", advice="this option takes a value")
    several = option.multiple or option.nargs != 1
    if isinstance(value, list) and not several:
        raise UsageError(f"{what} is an array", advice="give one value")
    made = as_text(items if several else value)
    try:
        option.process_value(ctx, made)
    except click.BadParameter as error:
        raise UsageError(f"{what}: {error.message}", advice="see the verb's --help") from None
    except CerewriteError as error:
        raise UsageError(f"{what}: {error.message}", advice=error.advice) from None
    return made


def template(commands: Commands, preset: str | None) -> str:
    """A file with every option of every verb as a comment, its meaning above it.

    Args:
        commands: the verbs.
        preset: one that the file switches on, or None.
    """
    lines = [
        f"# {FILE}: options for cerewrite in this folder. What the command line gives wins.",
        "# Take the # off a line to set it. These hold for every verb that has the option:",
    ]
    seen: set[str] = set()
    for command in commands.values():
        for key, option in flags(command).items():
            if key not in seen and shared_by(key, commands):
                seen.add(key)
                given = preset if option.name == "preset" else None
                lines += _commented(key, option, given)
    for name, command in commands.items():
        own = [(k, o) for k, o in flags(command).items() if k not in seen]
        if own:
            lines += ["", f"[{name}]"]
            lines += [line for key, option in own for line in _commented(key, option, None)]
    return "\n".join(lines) + "\n"


def _commented(key: str, option: click.Option, given: str | None) -> Iterator[str]:
    yield ""
    yield from (f"# {line}" for line in textwrap.wrap(option.help or "", 96))
    yield f'{key} = "{given}"' if given else f"#{key} = {_example(option)}"


def _example(option: click.Option) -> str:
    """The default in TOML, or the shape of a value where there is none."""
    default = option.default
    if option.is_flag:
        return "false"
    if option.multiple or option.nargs != 1:
        items = default if isinstance(default, tuple) else ()
        return f"[{', '.join(_quoted(item) for item in items)}]"
    if isinstance(default, (str, int, float)) and default != "":
        return _quoted(default)
    if isinstance(option.type, click.Choice):
        return _quoted(str(option.type.choices[0]))
    numeric = isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType))
    return "1" if numeric else '""'


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, (int, float)) else f'"{value}"'
