"""The original of an output folder: whose code is run when a folder is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cerewrite import ir
from cerewrite.errors import LoadError
from cerewrite.frontend import loading
from cerewrite.frontend.loading import InputShape, split_spec
from cerewrite.output.module_file import build_original
from cerewrite.output.names import MODULE, PLAN

if TYPE_CHECKING:
    from torch import nn

PASS = "pass --model path/model.py:factory; in Python, load(folder, model)"


def relative_source(source: str | None, target: Path) -> str:
    """A factory's spec as a folder at ``target`` records it; "" without one.

    A file's path is relative to the folder, so that it survives moving a tree that holds both;
    it is absolute if they share only the root.

    Raises:
        LoadError: if it is no spec.
    """
    if source is None:
        return ""
    place, factory = split_spec(source)
    if place.endswith(".py"):
        file = Path(place).resolve()
        shared = Path(os.path.commonpath([file, target]))
        nearby = shared != Path(shared.anchor)
        place = Path(os.path.relpath(file, target) if nearby else file).as_posix()
    return f"{place}:{factory}" if factory else place


def original_of(folder: Path, plan: ir.Plan, *, trust: bool = False) -> nn.Module:
    """The original model of a folder, from the factory that its plan names.

    The folder may be someone else's. So the factory is run only if this user converted a model
    of it on this machine (`cerewrite.frontend.loading.remember`), and never if it lies in the
    folder itself; the folder's own ``model_ce.py`` is run only if the user says that it is trusted.

    Args:
        folder: the folder.
        plan: its plan.
        trust: run the folder's ``model_ce.py`` instead, whatever it does.

    Raises:
        LoadError: if no factory is named, it must not be run, is gone, or fails.
        OutputError: if there is no ``model_ce.py`` to trust.
    """
    if trust:
        return build_original(folder)
    if not plan.source:
        raise LoadError(
            f"{folder / PLAN}: the original came from Python, or {MODULE} alone knows its factory",
            advice=f"{PASS}; or --trust (trust=True) to run the folder's {MODULE}",
        )
    place, _ = split_spec(plan.source)
    inside = _is_inside(folder, folder / place if place.endswith(".py") else Path.cwd())
    if place.endswith(".py") and not (folder / place).is_file():
        raise LoadError(
            f"{folder / PLAN}: {place}: no such file: the folder or the model's file was moved",
            advice=PASS,
        )
    if inside or not loading.is_known(plan.source, root=folder):
        why = "lies in the folder" if inside else "was never converted by you on this machine"
        raise LoadError(
            f"{folder}: its factory {plan.source} is not run, because it {why}",
            advice=f"{PASS}; or --trust (trust=True) to run the folder's {MODULE}",
        )
    root = folder if place.endswith(".py") else Path.cwd()
    return loading.build(plan.source, root=root)


def _is_inside(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def recorded_inputs(plan: ir.Plan, *, seed: int = 0) -> loading.Inputs | None:
    """Example inputs of the shapes that a plan records, drawn anew; None without any.

    Raises:
        UsageError: if a shape cannot be read or drawn.
    """
    shapes: list[InputShape] = [loading.parse_input_shape(text) for text in plan.inputs]
    return loading.make_inputs(shapes, seed=seed) if shapes else None
