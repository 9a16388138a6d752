"""Write a folder or a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from cerewrite.errors import OutputError
from cerewrite.output import swap
from cerewrite.output.claims import claimed, move_new
from cerewrite.output.drafts import draft_folder, hidden
from cerewrite.output.names import OURS


def check_target(
    path: str | os.PathLike[str],
    *,
    folder: bool,
    overwrite: bool = False,
    ours: Collection[str] = OURS,
) -> Path:
    """Check, before any long work, that an output can be written; nothing is left behind.

    Args:
        path: the folder or file that will be written.
        folder: whether it is a folder.
        overwrite: allow a file, or a folder that holds nothing but cerewrite's own files.
        ours: names of those.

    Returns:
        The absolute path, symbolic links resolved.

    Raises:
        OutputError: if it exists and must not be replaced, or its parent cannot be written.
    """
    try:
        return _checked(Path(path).resolve(), path, folder, overwrite, ours)
    except OSError as error:
        raise _unwritable(path, error) from None


def _checked(
    target: Path, shown: object, folder: bool, overwrite: bool, ours: Collection[str]
) -> Path:
    if folder:
        swap.recover(target)
    if target.is_dir():
        _check_folder(target, shown, folder, overwrite, ours)
    elif target.exists() and folder:
        raise OutputError(f"{shown}: exists and is a file", advice="choose a folder to write to")
    elif target.exists() and not overwrite:
        raise OutputError(f"{shown}: exists", advice="choose another name, or pass --force")
    parent = next(item for item in target.parents if item.exists())
    with tempfile.TemporaryDirectory(prefix=hidden(target, "tmp"), dir=parent):
        pass
    return target


def _check_folder(
    target: Path, shown: object, folder: bool, overwrite: bool, ours: Collection[str]
) -> None:
    if not folder:
        raise OutputError(f"{shown}: is a folder", advice="name a file to write to")
    held = sorted(item.name for item in target.iterdir())
    foreign = [name for name in held if name not in ours]
    if held and not overwrite:
        raise OutputError(
            f"{shown}: the folder exists and is not empty",
            advice="choose another folder, or pass --force to replace an earlier conversion",
        )
    if foreign:
        raise OutputError(
            f"{shown}: holds files that cerewrite did not write: {', '.join(foreign[:3])}",
            advice="choose another folder; --force replaces nothing but earlier conversions",
        )


def _unwritable(path: object, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written: {error.strerror or error}",
        advice="check the path, its permissions and the space left on the disk",
    )


@contextlib.contextmanager
def staged_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, ours: Collection[str] = OURS
) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` in one step when the block ends well.

    Whatever the block raises, and when the process is killed, ``path`` is what it was before
    (see `cerewrite.output.swap.put` for where an earlier folder is replaced). What a killed
    run left beside ``path`` is removed by the next one.

    Raises:
        OutputError: see `check_target`; also if the disk fails or fills up.
        TargetTakenError: if another run holds ``path``, or something appeared there meanwhile.
    """
    with claim(path):
        target = check_target(path, folder=True, overwrite=overwrite, ours=ours)
        with _drafting(path, target) as draft:
            _open_to_all(draft)
            yield draft
            _sync(draft)
            swap.put(draft, target, replace=ours if overwrite else ())


def write_file(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> None:
    """Write one text file, whole or not at all.

    Raises:
        OutputError: see `check_target`; also if the disk fails or fills up.
        TargetTakenError: as `staged_folder`.
    """
    with claim(path):
        target = check_target(path, folder=False, overwrite=overwrite)
        with _drafting(path, target) as draft:
            made = draft / target.name
            made.write_text(text, encoding="utf-8")
            _sync(draft)
            if overwrite:
                os.replace(made, target)
            else:
                move_new(made, target)


@contextlib.contextmanager
def claim(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a target from the first look at it until it is written.

    Raises:
        TargetTakenError: if another run holds it.
        OutputError: if nothing can be written beside it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(Path(path).resolve()))
        except OSError as error:
            raise _unwritable(path, error) from None
        yield


@contextlib.contextmanager
def _drafting(path: object, target: Path) -> Iterator[Path]:
    """A draft beside the target; errors of the disk are the user's to mend."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(target) as draft:
            yield draft
    except OSError as error:
        raise _unwritable(path, error) from error


def _open_to_all(folder: Path) -> None:
    """Give a private folder the mode that a new one has; the mask is the process's, not touched."""
    probe = folder / "mode"
    probe.mkdir()
    folder.chmod(probe.stat().st_mode & 0o777)
    probe.rmdir()


def _sync(folder: Path) -> None:
    for item in (*folder.rglob("*"), folder):
        handle = os.open(item, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
