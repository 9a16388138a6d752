"""Commands run in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from cerewrite import output
from cerewrite.cli import main

FILES = {output.PLAN, output.WEIGHTS, output.REPORT, output.PAGE, output.MODULE}


def run(*arguments: object) -> Result:
    """Run a command in this process; an exception that is none of ours fails the test."""
    result = CliRunner().invoke(main, [str(item) for item in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def listing(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}
