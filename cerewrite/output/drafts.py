"""Hidden folders beside the outputs, in which they are made."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def hidden(target: Path, kind: str) -> str:
    """The prefix of the hidden folders beside an output.

    Example:
        >>> hidden(Path("build/model.onnx"), "tmp")
        '.model.onnx.tmp-'
    """
    return f".{target.name}.{kind}-"


def beside(target: Path, kind: str) -> list[Path]:
    """The hidden folders of a kind beside an output, whoever made them."""
    found = target.parent.glob(f"{glob.escape(hidden(target, kind))}*")
    return sorted(path for path in found if path.is_dir())


@contextlib.contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """An empty hidden folder beside ``target``, gone in the end unless it was renamed.

    This process holds a lock on it for as long as it lives. Folders for the same target that
    nobody holds are what killed runs left, and are removed first. Where a file system has no
    locks, nothing is removed.

    Args:
        target: the output, in a folder that exists.

    Raises:
        OSError: if no folder can be made there.
    """
    sweep(target)
    folder, handle = _made(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep(target: Path) -> None:
    """Remove the drafts of killed runs: those for ``target`` that no living process holds."""
    for folder in beside(target, "tmp"):
        with contextlib.suppress(OSError):
            handle = _lock(folder)
            if handle is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


def _made(target: Path) -> tuple[Path, int | None]:
    """A new folder and its lock; another one if a sweep was quicker than the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=hidden(target, "tmp"), dir=target.parent))
        try:
            handle = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        if handle is None or folder.exists():
            return folder, handle
        os.close(handle)


def _lock(folder: Path) -> int | None:
    """An exclusive lock on a folder; None where the platform or the file system has none.

    Raises:
        BlockingIOError: if another process has it.
        FileNotFoundError: if the folder is gone.
    """
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle
