"""``model_ce.py``: the generated file through which a training script gets the model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cerewrite.errors import LoadError, OutputError
from cerewrite.frontend.loading import (
    Inputs,
    InputShape,
    make_inputs,
    parse_input_shape,
    running,
    split_spec,
)
from cerewrite.output.names import MODULE, PLAN, WEIGHTS
from cerewrite.runtime.alone import in_turn

if TYPE_CHECKING:
    from torch import nn

_TEMPLATE = '''\
"""{model}, rewritten: its own factory, with {plan} beside this file applied.

In a training script, change one import:

    from {module} import build_model

Written by cerewrite {version}. Edit SOURCE when files have moved.
"""

from pathlib import Path

import cerewrite

FOLDER = Path(__file__).resolve().parent
SOURCE = {source}
INPUTS = {inputs}


def build_original():
    """The original architecture, from its own factory."""
    return cerewrite.build(SOURCE, root=FOLDER)


def build_model(weights=False):
    """The rewritten architecture; with ``weights``, those of {weights} beside this file."""
    return cerewrite.load(FOLDER, build_original(), weights=weights, inplace=True)
'''


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rewritten model came from.

    Attributes:
        source: spec of the original's factory, relative to the working directory; None when the
            original came from Python.
        inputs: shapes of the example inputs, None when they cannot be drawn again.
    """

    source: str | None = None
    inputs: tuple[InputShape, ...] | None = None


def write_module(folder: Path, target: Path, model: str, origin: Origin, *, version: str) -> None:
    """Write ``model_ce.py``.

    Args:
        folder: where to.
        target: the folder's final place; a source's path is written relative to it.
        model: class name of the original.
        origin: the original's factory and inputs.
        version: version of this program.
    """
    source = origin.source
    if source is not None:
        place, factory = split_spec(source)
        if place.endswith(".py"):
            place = _relative(Path(place).resolve(), target)
            source = f"{place}:{factory}" if factory else place
    inputs = None if origin.inputs is None else [str(item) for item in origin.inputs]
    text = _TEMPLATE.format(
        model=model,
        plan=PLAN,
        module=Path(MODULE).stem,
        version=version,
        source="None" if source is None else json.dumps(source, ensure_ascii=False),
        inputs="None" if inputs is None else _tuple(inputs),
        weights=WEIGHTS,
    )
    (folder / MODULE).write_text(text, encoding="utf-8")


def _relative(file: Path, folder: Path) -> str:
    """A path that survives moving a tree that holds both; absolute if they share only the root."""
    shared = Path(os.path.commonpath([file, folder]))
    nearby = shared != Path(shared.anchor)
    return Path(os.path.relpath(file, folder) if nearby else file).as_posix()


def _tuple(texts: Sequence[str]) -> str:
    return "(" + " ".join(f"{json.dumps(text)}," for text in texts) + ")"


def build_original(folder: Path) -> nn.Module:
    """The original model, as the folder's ``model_ce.py`` builds it.

    Raises:
        OutputError: if the folder holds no ``model_ce.py``.
        LoadError: if that file, or the factory it names, fails.
    """
    home = _run(folder)
    if getattr(home, "SOURCE", None) is None:
        raise LoadError(
            f"{folder / MODULE}: the original came from Python, no factory is known",
            advice="give the model to load(folder, model), or set SOURCE to path/model.py:factory",
        )
    try:
        model: nn.Module = home.build_original()
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        raise running.failure(
            f"{folder / MODULE}: cannot build the original", error, folder / MODULE
        ) from error
    return model


def example_inputs(folder: Path, *, seed: int = 0) -> Inputs | None:
    """Example inputs of the shapes that ``model_ce.py`` records, drawn anew; None without any.

    Raises:
        OutputError: if the folder holds no ``model_ce.py``.
        LoadError: if that file fails.
        UsageError: if a shape in it cannot be read.
    """
    shapes = getattr(_run(folder), "INPUTS", None)
    return make_inputs([parse_input_shape(text) for text in shapes], seed=seed) if shapes else None


def _run(folder: Path) -> ModuleType:
    path = folder / MODULE
    if not path.is_file():
        raise OutputError(
            f"{folder}: holds no {MODULE}",
            advice="name a folder that `cerewrite convert --out` wrote",
        )
    with in_turn(), running.importable(path.resolve().parent):
        return running.run_file(path.resolve(), str(path))
