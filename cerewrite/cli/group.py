"""Exit codes: 0 done, 2 usage, one per error family, 130 interrupted."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import click

from cerewrite.cli.command import Command
from cerewrite.errors import CerewriteError, LoadError, own_line
from cerewrite.runtime.alone import Stopped

INTERRUPTED = 130
TERMINATED = 143
AGAIN = 0.02
"""Seconds after which a SIGTERM that came while a module was imported is looked at again."""
PATIENCE = 10.0
"""Seconds that an import may take before it is ended all the same."""


class Group(click.Group):
    """A group whose commands fail as `cerewrite.errors` says: message, advice, exit code."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; turn its errors into exit codes, and SIGTERM into a clean end."""
        before = _end_on_sigterm()
        try:
            return super().invoke(ctx)
        except CerewriteError as error:
            click.secho(f"Error: {error.message}", err=True, fg="red")
            click.echo(f"  -> {error.advice}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was written", err=True)
            ctx.exit(INTERRUPTED)
        except Stopped:
            ctx.exit(TERMINATED)
        except SystemExit as error:
            what = f"the model's own code ends the program: SystemExit: {error.code}"
            click.secho(f"Error: {what}{own_line(error)}", err=True, fg="red")
            click.echo("  -> let it raise an error instead", err=True)
            ctx.exit(LoadError.exit_code)
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)


def _end_on_sigterm() -> Any:
    """Let a SIGTERM unwind the stack, so that half-written outputs are removed.

    A module that is being imported is waited for: libraries turn what is raised there into other
    errors, or swallow it.

    Returns:
        What answered the signal before; None where it still does.
    """
    left = PATIENCE / AGAIN

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal left
        left -= 1
        if left > 0 and _importing(frame):
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            raise Stopped

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals cannot be set
        return None


def _importing(frame: FrameType | None) -> bool:
    """Whether some module is being imported, on a platform that can look again later."""
    if not hasattr(signal, "setitimer"):
        return False
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
