"""Exit codes: 0 done, 2 usage, one per error family, 130 interrupted."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

import click

from cerewrite.errors import CerewriteError

INTERRUPTED = 130
TERMINATED = 143


class Group(click.Group):
    """A group whose commands fail as `cerewrite.errors` says: message, advice, exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; turn its errors into exit codes, and SIGTERM into a clean end."""
        _end_on_sigterm()
        try:
            return super().invoke(ctx)
        except CerewriteError as error:
            click.secho(f"Error: {error.message}", err=True, fg="red")
            click.echo(f"  -> {error.advice}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was written", err=True)
            ctx.exit(INTERRUPTED)


def _end_on_sigterm() -> None:
    """Let a SIGTERM unwind the stack, so that half-written outputs are removed."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    try:
        signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals cannot be set
        return
