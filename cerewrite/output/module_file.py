"""``model_ce.py``: the generated file through which a training script gets the model."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cerewrite.errors import LoadError, OutputError
from cerewrite.frontend.loading import running
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


def write_module(
    folder: Path, model: str, source: str, inputs: Sequence[str], *, version: str
) -> None:
    """Write ``model_ce.py``; every value in it is quoted or an identifier.

    Args:
        folder: where to.
        model: class name of the original, a dotted identifier.
        source: the original's factory as the folder records it, "" without one.
        inputs: shapes of the example inputs.
        version: version of this program.
    """
    assert all(part.isidentifier() for part in model.split(".")), model
    text = _TEMPLATE.format(
        model=model,
        plan=PLAN,
        module=Path(MODULE).stem,
        version=version,
        source=_quoted(source) if source else "None",
        inputs=f"({' '.join(f'{_quoted(text)},' for text in inputs)})" if inputs else "None",
        weights=WEIGHTS,
    )
    (folder / MODULE).write_text(text, encoding="utf-8")


def _quoted(text: str) -> str:
    """The text as a literal of Python: in double quotes, unless it holds what must be escaped."""
    literal = json.dumps(text, ensure_ascii=False)
    return literal if text.isprintable() and ast.literal_eval(literal) == text else repr(text)


def build_original(folder: Path) -> nn.Module:
    """The original model, as the folder's ``model_ce.py`` builds it: its code is run.

    Raises:
        OutputError: if the folder holds no ``model_ce.py``.
        LoadError: if that file, or the factory it names, fails.
    """
    from torch import nn

    home = _run(folder)
    if getattr(home, "SOURCE", None) is None:
        raise LoadError(
            f"{folder / MODULE}: the original came from Python, no factory is known",
            advice="give the model to load(folder, model), or set SOURCE to path/model.py:factory",
        )
    try:
        model = home.build_original()
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        raise running.failure(
            f"{folder / MODULE}: cannot build the original", error, folder / MODULE
        ) from error
    if not isinstance(model, nn.Module):
        raise LoadError(
            f"{folder / MODULE}: build_original returned an object of type "
            f"{type(model).__name__}, not an nn.Module",
            advice="let it return the original model",
        )
    return model


def _run(folder: Path) -> ModuleType:
    path = folder / MODULE
    if not path.is_file():
        raise OutputError(
            f"{folder}: holds no {MODULE}",
            advice="name a folder that `cerewrite convert --out` wrote",
        )
    with in_turn(), running.importable(path.resolve().parent):
        return running.run_file(path.resolve(), str(path))
