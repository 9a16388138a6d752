"""Put a finished folder in the place of an earlier one, and mend what a killed run left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

from cerewrite.output.drafts import beside, hidden

AT_FDCWD = -100
RENAME_EXCHANGE = 2


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
    aside = Path(tempfile.mkdtemp(prefix=hidden(target, "old"), dir=target.parent))
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
    whole = [folder for folder in beside(target, "old") if any(folder.iterdir())]
    if whole:
        with contextlib.suppress(OSError):
            os.rename(max(whole, key=lambda folder: folder.stat().st_mtime), target)


def _sync_entry(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
