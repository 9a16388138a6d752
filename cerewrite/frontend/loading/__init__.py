"""Load stage: from ``model.py``, ``model.py:factory`` or ``package.module:factory`` to a module.

A model file is run under a private name, so that loading it twice, or loading two files of the
same name, never collides; it may import files that lie beside it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cerewrite.errors import LoadError
from cerewrite.frontend.loading import running, search
from cerewrite.frontend.loading.arrays import read_inputs
from cerewrite.frontend.loading.inputs import (
    Inputs,
    InputShape,
    describe_inputs,
    make_inputs,
    parse_input_shape,
)
from cerewrite.runtime.alone import in_turn

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "InputShape",
    "Inputs",
    "Loaded",
    "build",
    "describe_inputs",
    "load",
    "make_inputs",
    "parse_input_shape",
    "read_inputs",
    "split_spec",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and where it came from.

    Attributes:
        module: the model, in the mode in which its factory left it.
        spec: the spec in full, with the factory that was found.
        factory: what was called, in words.
        example_inputs: what the file offers as example inputs, if anything.
    """

    module: nn.Module
    spec: str
    factory: str
    example_inputs: Inputs | None = None


def load(spec: str, *, root: str | os.PathLike[str] = ".", seed: int | None = None) -> Loaded:
    """Build the model that a spec names.

    A bare ``model.py`` is searched: for a zero-argument function ``build_model`` first, then for
    exactly one zero-argument function, ``nn.Module`` subclass or ``nn.Module`` instance.

    Args:
        spec: ``path/model.py``, ``path/model.py:factory`` or ``package.module:factory``.
        root: folder from which relative paths, and modules, are looked up first.
        seed: if given, the factory runs with torch seeded so, and the seed is undone after it.

    Raises:
        LoadError: if the file, module or factory does not exist, fails, or yields no model.

    Example:
        >>> load("torch.nn:Flatten").factory
        'class Flatten of torch.nn'
    """
    shown, name = split_spec(spec)
    if not shown.endswith(".py"):
        folders = (Path(os.path.abspath(root)), Path.cwd())
        with in_turn(), running.on_path(*folders), running.seeded(seed):
            home = running.import_module(shown, spec)
            found = search.named(home, name, shown)
            module = search.build(found, shown)
        return Loaded(module, spec, f"{found.kind} {found.name} of {shown}")
    path = Path(os.path.abspath(Path(root) / shown))
    running.check_file(path, shown)
    with in_turn(), running.importable(path.parent), running.seeded(seed):
        home = running.run_file(path, shown)
        found = search.named(home, name, shown) if name else search.only_model(home, shown)
        module = search.build(found, shown, path)
        inputs = search.example_inputs(home, shown, path)
    return Loaded(module, f"{shown}:{found.name}", f"{found.kind} {found.name} of {shown}", inputs)


def build(spec: str, *, root: str | os.PathLike[str] = ".") -> nn.Module:
    """The model that a spec names, alone; a generated ``model_ce.py`` calls this.

    Args:
        spec: as for `load`.
        root: folder from which relative paths, and modules, are looked up first.

    Raises:
        LoadError: see `load`.

    Example:
        >>> build("torch.nn:Flatten")
        Flatten(start_dim=1, end_dim=-1)
    """
    return load(spec, root=root).module


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
