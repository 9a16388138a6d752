"""Integers that modules and their configurations hold, handed out so that they remember it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cerewrite.ir.lengths import HELD, Axis, Length

_STOCK = ("torch.nn.", "torch.ao.")

Met = set[tuple[str, Axis]]

MET = "met"
"""Marks a constant that stands for an attribute which the forward compared with an axis."""

USED = "used"
"""Marks a constant that stands for an attribute which the forward computes with."""


@contextlib.contextmanager
def numbers_remembered(model: nn.Module) -> Iterator[tuple[set[str], Met]]:
    """Integer attributes of users' modules, and fields of their configurations, as `Length`.

    An attribute's axis is its qualified name and `HELD`. Stock modules keep plain numbers: what
    a split does to them its rule knows. A configuration that several modules hold goes by the
    name that it has in the first of them.

    Yields:
        The names of those that the forward computes with in other ways than as lengths; and those
        that it found to equal the length of an axis, each with the axis.

    Example:
        >>> class Layer(nn.Module):
        ...     heads = 0
        >>> layer = Layer()
        >>> layer.heads = 4
        >>> with numbers_remembered(layer):
        ...     layer.heads.axes
        (('heads', -1),)
        >>> type(layer.heads)
        <class 'int'>
    """
    with _nothing_reused():
        yield from _remembered(model)


@contextlib.contextmanager
def _nothing_reused() -> Iterator[None]:
    """Let einops work out every view anew: it would give one module's numbers to another.

    It keeps the sizes of views by their values, and those of other modules and runs are equal.
    """
    views: Any = sys.modules.get("einops.einops")
    kept: Any = getattr(views, "_reconstruct_from_shape", None)
    if not hasattr(kept, "__wrapped__"):
        yield
        return
    views._reconstruct_from_shape = kept.__wrapped__
    try:
        yield
    finally:
        views._reconstruct_from_shape = kept


def _remembered(model: nn.Module) -> Iterator[tuple[set[str], Met]]:
    before: list[tuple[dict[str, Any], str, int]] = []
    seen: set[int] = set()
    used: set[str] = set()
    met: Met = set()
    try:
        for name, module in model.named_modules():
            if type(module).__module__.startswith(_STOCK):
                continue
            for path, fields in _holders(name, module):
                if id(fields) in seen:
                    continue
                seen.add(id(fields))
                for key, value in list(fields.items()):
                    if type(value) is int and value > 1 and not key.startswith("__"):
                        before.append((fields, key, value))
                        fields[key] = Length(value, [(f"{path}{key}", HELD)])
                        fields[key].used, fields[key].met = used, met
        yield used, met
    finally:
        for fields, key, value in before:
            if key in fields:
                fields[key] = value


def _holders(name: str, module: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dictionaries of a module's own attributes, and of objects that it holds."""
    prefix = f"{name}." if name else ""
    yield prefix, vars(module)
    for key, value in list(vars(module).items()):
        if isinstance(value, nn.Module | Tensor | type) or callable(value):
            continue
        fields = getattr(value, "__dict__", None)
        if type(fields) is dict and not type(value).__module__.startswith(("torch", "builtins")):
            yield f"{prefix}{key}.", fields
