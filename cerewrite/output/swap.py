"""Put a finished folder in the place of an earlier one, and mend what a killed run left."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from cerewrite.errors import TargetTakenError
from cerewrite.output.claims import RENAME_EXCHANGE, appeared, move_new, renamed
from cerewrite.output.drafts import beside, hidden


def put(draft: Path, target: Path, *, replace: Collection[str] = ()) -> None:
    """Rename a folder onto another one; afterwards ``draft`` is gone or holds the earlier one.

    Only an absent or an empty target is taken, or a folder of files that may be replaced; whatever
    else appeared there since it was checked stays. Where the kernel and the file system exchange
    two folders in one step (Linux: ext4, xfs, btrfs, tmpfs), ``target`` is at every moment the
    earlier folder or the new one. Elsewhere the earlier one stands aside as ``.NAME.old-*`` for
    the time of one rename; a run killed just then leaves ``target`` absent, and `recover` brings
    the earlier one back.

    Args:
        draft: the finished folder.
        target: its place.
        replace: names of the files that an earlier folder may hold; none: it is not replaced.

    Raises:
        TargetTakenError: if something else is there; it is left as it is.
        OSError: if the disk fails; ``target`` is then what it was.
    """
    if not replace or not os.path.lexists(target) or _empty(target):
        move_new(draft, target)
    elif exchange(draft, target):
        if not _ours(draft, replace):
            exchange(draft, target)
            raise appeared(target)
    elif _ours(target, replace):
        _put_in_two_steps(draft, target, replace)
    else:
        raise appeared(target)
    _sync_entry(target.parent)


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _ours(folder: Path, names: Collection[str]) -> bool:
    """Whether it is a folder of files that may be replaced."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(item.name in names for item in folder.iterdir())


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; whether the platform could."""
    return renamed(first, second, RENAME_EXCHANGE)


def _put_in_two_steps(draft: Path, target: Path, replace: Collection[str]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=hidden(target, "old"), dir=target.parent))
    os.rename(target, aside)
    try:
        if not _ours(aside, replace):
            raise appeared(target)
        move_new(draft, target)
    except (OSError, TargetTakenError):
        move_new(aside, target)
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
