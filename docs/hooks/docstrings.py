"""Docstrings as the reference pages show them: an extension of griffe, which mkdocstrings uses."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """``Example:`` holds doctests, ``::`` opens a block of code; a module shows what is its own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that was read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Called once a module's members are known: what a package re-exports stands elsewhere."""
        mod.exports = None
