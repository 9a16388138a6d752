"""Specs: where a factory is, as users write it."""

from __future__ import annotations

from pathlib import Path

from cerewrite.errors import LoadError


def split_spec(spec: str) -> tuple[str, str]:
    """A spec's place (a .py file or a module) and factory ("" for a search).

    Raises:
        LoadError: if the spec is neither a .py file nor ``module:factory``.

    Example:
        >>> split_spec("nets/model.py:wide"), split_spec("torchvision.models:resnet50")
        (('nets/model.py', 'wide'), ('torchvision.models', 'resnet50'))
    """
    place, _, factory = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    if place.endswith(".py"):
        return place, factory
    if _dotted(place) and _dotted(factory):
        return place, factory
    if Path(spec).is_dir():
        reason = "a folder, not a .py file"
    elif Path(spec).exists():
        reason = "not a .py file"
    else:
        reason = "no such file, and not of the form package.module:factory"
    raise LoadError(
        f"{spec}: {reason}",
        advice="name a file (path/model.py), a factory in it (path/model.py:build_model) or an "
        "importable one (package.module:factory)",
    )


def _dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
