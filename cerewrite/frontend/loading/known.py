"""Factories that this user has named on this machine: a folder may have them run again.

A folder says where its original is built. Someone else's folder could name anything, so a
factory is run for a folder only if this user converted a model of it before. What was named is
kept as hashes in the user's cache folder, one a line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from cerewrite.frontend.loading.spec import split_spec
from cerewrite.runtime.cache import cache_folder

NAME = "factories"
_named: set[str] = set()
"""What was named in this process, whether or not the cache can be written."""


def remember(spec: str, *, root: str | os.PathLike[str] = ".") -> None:
    """Note that the user named a factory: for this process, and in the user's cache if it can.

    Args:
        spec: as for `cerewrite.frontend.loading.load`.
        root: folder from which a relative path is looked up.
    """
    if is_known(spec, root=root):
        return
    _named.add(_key(spec, root))
    with contextlib.suppress(OSError):
        path = cache_folder() / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(f"{_key(spec, root)}\n")


def is_known(spec: str, *, root: str | os.PathLike[str] = ".") -> bool:
    """Whether `remember` has seen that factory: the same file, or the same name in a module."""
    key = _key(spec, root)
    if key in _named:
        return True
    with contextlib.suppress(OSError, ValueError):
        path = cache_folder() / NAME
        return key in path.read_text(encoding="ascii").splitlines()
    return False


def _key(spec: str, root: str | os.PathLike[str]) -> str:
    place, factory = split_spec(spec)
    is_file = place.endswith(".py")
    named = os.path.realpath(Path(root) / place) if is_file else f"{place}:{factory}"
    return hashlib.sha256(os.fsencode(named)).hexdigest()
