"""Modules that are registered under several names: the first of them is what they are called by."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def aliases(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    """The further names of modules that have several, by their first name.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> dict(aliases(nn.Sequential(layer, nn.ReLU(), layer)))
        {'0': ('2',)}
    """
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(name)
    return {names[0]: tuple(names[1:]) for names in found.values() if len(names) > 1}


def first_names(model: nn.Module) -> Mapping[str, str]:
    """The first name of every module by its further ones.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> dict(first_names(nn.Sequential(layer, nn.ReLU(), layer)))
        {'2': '0'}
    """
    return {name: first for first, names in aliases(model).items() for name in names}
