"""``model_ce.py``: the generated file through which a training script gets the model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cerewrite import ir
from cerewrite.artifacts.names import MODULE, PLAN, WEIGHTS
from cerewrite.errors import OutputError
from cerewrite.loader import InputShape, parse_input_shape, split_spec
from cerewrite.loader import running

_TEMPLATE = '''\
"""{title}: its own factory, with {plan} beside this file applied.

In a training script, change one import:

    from {module} import build_model

Written by cerewrite {version}. SOURCE may be edited when files move.
"""

from pathlib import Path

import cerewrite

FOLDER = Path(__file__).resolve().parent
SOURCE = {source}
INPUTS = {inputs}


def build_original():
    """The original architecture, from its own factory, freshly initialised."""
    if SOURCE is None:
        raise cerewrite.LoadError(
            f"{{__file__}}: the original came from Python, not from a factory",
            advice="set SOURCE to path/model.py:factory, or call cerewrite.load(folder, model)",
        )
    return cerewrite.build(SOURCE, root=FOLDER)


def build_model(weights=False):
    """The rewritten architecture; with ``weights``, those in {weights} beside this file."""
    return cerewrite.load(FOLDER, build_original(), weights=weights)
'''


def write_module(
    folder: Path,
    plan: ir.Plan,
    *,
    target: Path,
    source: str | None,
    inputs: Sequence[InputShape] | None,
    version: str,
) -> None:
    """Write ``model_ce.py``.

    Args:
        folder: where to.
        plan: the plan beside it.
        target: the folder's final place, to which the source's path is made relative.
        source: spec of the original's factory; None if it came from Python.
        inputs: shapes of the example inputs, if they can be drawn again.
        version: version of this program.
    """
    if source is not None:
        place, factory = split_spec(source)
        if place.endswith(".py"):
            source = f"{Path(os.path.relpath(place, target)).as_posix()}:{factory}".rstrip(":")
    text = _TEMPLATE.format(
        title=f"{plan.model}, rewritten",
        plan=PLAN,
        module=Path(MODULE).stem,
        version=version,
        source=_literal(source),
        inputs="None" if inputs is None else _literal_tuple([str(item) for item in inputs]),
        weights=WEIGHTS,
    )
    (folder / MODULE).write_text(text, encoding="utf-8")




def _literal(text: str | None) -> str:
    return "None" if text is None else json.dumps(text, ensure_ascii=False)


def _literal_tuple(texts: Sequence[str]) -> str:
    return "(" + ", ".join(map(_literal, texts)) + ("," if len(texts) == 1 else "") + ")"
