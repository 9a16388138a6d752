"""The command line. click is imported here only; torch, only when a command needs it."""

from cerewrite.cli.commands import main

__all__ = ["main"]
