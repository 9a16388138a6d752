"""Numbers at the command line: in the digits 0 to 9, finite, and with an upper end."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from cerewrite.ir import LARGEST_SIZE


class Whole(click.IntRange):
    """A whole number in the digits 0 to 9, from ``min`` to ``most``."""

    def __init__(self, least: int, most: int = LARGEST_SIZE) -> None:
        super().__init__(least)
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            BadParameter: if it is none, or out of range.
        """
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value) is None:
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        if isinstance(value, str) and len(value) > 20:
            self.fail(f"{value[:20]}... is above {self.most}.", param, ctx)
        found = super().convert(value, param, ctx)
        if found > self.most:
            self.fail(f"{found} is above {self.most}.", param, ctx)
        return found


class Positive(click.FloatRange):
    """A finite number above 0."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            BadParameter: if it is none, or out of range.
        """
        found = super().convert(value, param, ctx)
        if not math.isfinite(found) or not str(value).isascii():
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found
