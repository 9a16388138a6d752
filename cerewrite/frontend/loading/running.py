"""Run a user's model file, or import a module, and turn what goes wrong into a LoadError."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from cerewrite.errors import LoadError
from cerewrite.registry import suggest

_numbers = itertools.count()
_siblings: dict[str, Path] = {}


def check_file(path: Path, shown: str) -> None:
    """Check that a model file is there.

    Raises:
        LoadError: if it does not exist (with a near miss) or is no file.
    """
    if path.is_file():
        return
    if path.exists():
        raise LoadError(f"{shown}: not a file", advice="name the .py file inside it")
    beside = [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []
    hint = suggest(path.name, dict.fromkeys(beside)) if beside else "check the path"
    raise LoadError(f"{shown}: no such file", advice=hint)


@contextlib.contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """Put folders at the head of the import path, and the path back afterwards."""
    path = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = path


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let files in ``folder`` be imported, and forget those that another folder brought in.

    Two models may each have a ``blocks.py`` beside them; the later load gets its own.
    """
    for name, origin in list(_siblings.items()):
        if origin != folder:
            sys.modules.pop(name, None)
            del _siblings[name]
    before = set(sys.modules)
    try:
        with on_path(folder):
            yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if _lies_beside(file, folder):
                _siblings[name] = folder


def _lies_beside(file: str | None, folder: Path) -> bool:
    if not file or not Path(file).is_relative_to(folder):
        return False
    inside = Path(file).relative_to(folder).parts
    return "site-packages" not in inside and inside[0] not in ("cerewrite", "passes")


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Run with torch's generator seeded, then put it back; None leaves it alone."""
    if seed is None:
        yield
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def run_file(path: Path, shown: str) -> ModuleType:
    """Run a model file under a private module name; no bytecode is written.

    Raises:
        LoadError: if the file does not compile, or raises.
    """
    name = f"cerewrite_model_{next(_numbers)}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise failure(f"{shown}: cannot be run", error, path) from error
    return module


def import_module(name: str, spec: str) -> ModuleType:
    """Import a module by its dotted name.

    Raises:
        LoadError: if it does not exist, or raises while being imported.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if name == missing or (missing and name.startswith(f"{missing}.")):
            raise LoadError(
                f"{spec}: no module named '{missing}'",
                advice="install it, or run from the folder that holds it",
            ) from None
        raise failure(f"{spec}: cannot be imported", error) from error


def failure(what: str, error: BaseException, file: Path | None = None) -> LoadError:
    """A LoadError that shows a user's exception and the line of the file that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    where = f" (line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return LoadError(f"{what}: {text}{where}", advice="mend that, then run again")
