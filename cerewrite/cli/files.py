"""Options that name what a verb writes, and the JSON that every verb has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cerewrite import ir
from cerewrite.cli.options import Decorator, switch

FORCE = switch("--force", description="Replace what an earlier run wrote.")


def folder_option(*, required: bool) -> Decorator:
    """``--out DIR``."""
    return click.option(
        "--out", required=required, type=click.Path(), metavar="DIR", help="Folder to write."
    )


def file_option(flag: str, description: str) -> Decorator:
    """An option that names a file to write; ``-`` is standard output where text is written."""
    return click.option(flag, type=click.Path(), metavar="FILE", help=description)


class JsonOption(click.Option):
    """``--json FILE``, which knows what is written.

    Args:
        record: gives a frozen record, or ``tuple[it, ...]``; called when a schema is asked for.
        further: as for `click.Option`.
    """

    def __init__(self, *args: Any, record: Callable[[], Any], **further: Any) -> None:
        super().__init__(*args, **further)
        self.record = record


def json_option(what: str, record: Callable[[], Any]) -> Decorator:
    """``--json FILE`` of a verb.

    Args:
        what: is written, with its article.
        record: gives its type; see `JsonOption`.
    """
    return click.option(
        "--json",
        cls=JsonOption,
        record=record,
        type=click.Path(),
        metavar="FILE",
        help=f"Write {what} as JSON; - for standard output.",
    )


REPORT = json_option("the report", lambda: ir.Report)
"""What `convert` and `apply` write."""
