"""Put a finished folder in the place of an earlier one, and mend what a killed run left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
YOUNG = 60.0
"""Seconds for which a draft without an owner is left alone: it may be about to get one."""


def put(draft: Path, target: Path) -> None:
    """Rename a folder onto another one; afterwards ``draft`` is gone or holds the earlier one.

    Where the kernel and the file system exchange two folders in one step (Linux: ext4, xfs,
    btrfs, tmpfs), ``target`` is at every moment the earlier folder or the new one. Elsewhere the
    earlier one stands aside as ``.NAME.old-*`` for the time of one rename; a run killed just
    then leaves ``target`` absent, and `recover` brings the earlier one back.

    Raises:
        OSError: if the disk fails; ``target`` is then what it was.
    """
    if not target.exists() or not any(target.iterdir()):
        os.rename(draft, target)
    elif not exchange(draft, target):
        _put_in_two_steps(draft, target)
    _sync_entry(target.parent)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; whether the platform could."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    paths = os.fsencode(first), os.fsencode(second)
    done: int = call(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE)
    return done == 0


def _put_in_two_steps(draft: Path, target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    os.rename(target, aside)
    try:
        os.rename(draft, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def recover(target: Path) -> None:
    """Bring an earlier folder back if a run was killed while it stood aside."""
    if target.exists():
        return
    left = [folder for folder in target.parent.glob(f".{target.name}.old-*") if folder.is_dir()]
    whole = [folder for folder in left if any(folder.iterdir())]
    if whole:
        with contextlib.suppress(OSError):
            os.rename(max(whole, key=lambda folder: folder.stat().st_mtime), target)


@contextlib.contextmanager
def owned(draft: Path) -> Iterator[None]:
    """Mark a draft as in use for as long as this process lives."""
    handle = _lock(draft)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sweep(target: Path) -> None:
    """Remove the drafts of killed runs: those for ``target`` that nobody owns any more."""
    for draft in target.parent.glob(f".{target.name}.tmp-*"):
        with contextlib.suppress(OSError):
            if not draft.is_dir() or time.time() - draft.stat().st_mtime < YOUNG:
                continue
            handle = _lock(draft)
            if handle is not None:
                shutil.rmtree(draft, ignore_errors=True)
                os.close(handle)


def _lock(folder: Path) -> int | None:
    """An exclusive lock on a folder; None if another process has it, or there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _sync_entry(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
