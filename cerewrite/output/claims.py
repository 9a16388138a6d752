"""Who holds a target: one run at a time writes an output, and none takes what it did not see."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cerewrite.errors import TargetTakenError

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_FULL = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
"""What renaming onto something says."""

_held: dict[Path, tuple[int, int]] = {}
"""Targets that this process holds: by which thread, and how many times."""
_guard = threading.Lock()


@contextlib.contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Hold a target for the time of a run, by a lock file beside it that names the process.

    The thread that holds it may claim it again; every other one, and every other process, is
    refused. The lock ends with its process, however that ends; the next run takes the file over.
    Folders above the target are made if need be, and taken away again if they stay empty. Where a
    file system has no locks, threads of one process alone are kept apart.

    Args:
        target: an absolute path, links resolved.

    Raises:
        TargetTakenError: if somebody else holds it; the message says who.
        OSError: if no lock file can be written there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with claimed(folder / "out"):
        ...     print([path.name for path in folder.iterdir()])
        ['.out.lock']
        >>> list(folder.iterdir())
        []
    """
    me = threading.get_ident()
    with _guard:
        thread, times = _held.get(target, (me, 0))
        if thread != me:
            raise _taken(target, f"thread {thread} of this process, {os.getpid()}")
        _held[target] = me, times + 1
    try:
        if times:
            yield
        else:
            with _locked(target):
                yield
    finally:
        with _guard:
            thread, times = _held.pop(target)
            if times > 1:
                _held[target] = thread, times - 1


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target.with_name(f".{target.name}.lock")
    try:
        lock = _open(place, target)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                place.unlink()
            lock.close()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _open(place: Path, target: Path) -> IO[str]:
    """The lock file, locked where the platform can; written anew if its holder took it away."""
    try:
        import fcntl
    except ImportError:
        return place.open("a+", encoding="utf-8")
    while True:
        lock = place.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(200).strip()
            lock.close()
            raise _taken(target, holder or "another process") from None
        except OSError:  # a file system without locks
            return lock
        if _is_at(lock, place):
            lock.truncate(0)
            lock.write(f"process {os.getpid()}" + _host())
            lock.flush()
            return lock
        lock.close()


def _is_at(lock: IO[str], place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _host() -> str:
    return f" on {os.uname().nodename}" if hasattr(os, "uname") else ""


def _taken(target: Path, holder: str) -> TargetTakenError:
    return TargetTakenError(
        f"{target}: is being written by {holder}",
        advice="wait until that run has ended, or choose another name",
    )


def appeared(target: object) -> TargetTakenError:
    """What to say when something stands where nothing did."""
    return TargetTakenError(
        f"{target}: something appeared there in the meantime; it was left as it is",
        advice="look at it, then choose another name, or pass --force",
    )


def move_new(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that nothing has, or a folder onto an empty one.

    Raises:
        TargetTakenError: if something is there; it stays, and so does ``source``.
        OSError: if the disk fails.
    """
    try:
        if source.is_dir():
            os.rename(source, target)  # takes an empty folder, no other
        elif not renamed(source, target, RENAME_NOREPLACE):
            _link(source, target)
    except OSError as error:
        if error.errno in _FULL:
            raise appeared(target) from None
        raise


def _link(source: Path, target: Path) -> None:
    """Give a file its name where the system cannot rename without replacing."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        os.rename(source, target)
    else:
        os.unlink(source)


def renamed(source: Path, target: Path, how: int) -> bool:
    """Linux's renameat2: whether the platform and the file system could.

    Raises:
        FileExistsError: if nothing was to be replaced and something is there.
    """
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    done: int = call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), how)
    if done and ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, "exists", str(target))
    return done == 0
