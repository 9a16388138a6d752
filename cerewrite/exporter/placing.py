"""An ONNX file, and the data beside it, put in their place once they are proved."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo

from cerewrite.errors import ExportError, TargetTakenError
from cerewrite.output.claims import claimed, move_new
from cerewrite.output.drafts import draft_folder


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A file of the target's name in a temporary folder beside it, removed in the end.

    External data is found by its name, so the file must be written under its final one. What
    killed runs left beside the target is removed (`cerewrite.output.drafts`).

    Raises:
        ExportError: if the folder cannot be written, or the disk fails or fills up inside.
        TargetTakenError: if another run is writing it.
    """
    try:
        if target.is_dir():
            raise ExportError(f"{target} is a folder", advice="name a file, such as model.onnx")
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with claimed(target.resolve()), draft_folder(target) as folder:
            yield folder / target.name
    except OSError as error:
        raise unwritable(target, error) from error


def publish(draft: Path, target: Path, *, overwrite: bool = True) -> None:
    """Move the staged files to their place, the model itself last.

    A model of one file is replaced in one step. One with external data is two files, which no
    file system swaps in one step: an earlier model is taken away first, so that whoever looks
    finds the new model, the old one, or none, and never one with the other's data. The data of
    an earlier model that has none now goes with it.

    Args:
        draft: the staged model.
        target: its place.
        overwrite: whether an earlier file may be replaced.

    Raises:
        ExportError: if data of that name belong to something else, or the disk fails.
        TargetTakenError: if a file appeared there that must not be replaced.
    """
    if not overwrite:
        _publish_new(draft, target)
        return
    data = sorted(file for file in draft.parent.iterdir() if file.name != draft.name)
    old = external_files(target) if target.is_file() else frozenset()
    for file in data:
        place = target.with_name(file.name)
        if place.exists() and file.name not in old:
            raise ExportError(
                f"{place} exists and is no data of {target.name}",
                advice="move it away, or choose another name",
            )
    try:
        if data and old:
            target.unlink()
        for file in (*data, draft):
            os.replace(file, target.with_name(file.name))
        for name in old - {file.name for file in data}:
            target.with_name(name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(target, error) from error


def _publish_new(draft: Path, target: Path) -> None:
    """Move the staged files to names that nothing has, the model itself last; all or none."""
    moved: list[Path] = []
    try:
        for file in sorted(draft.parent.iterdir(), key=lambda file: file.name == draft.name):
            move_new(file, place := target.with_name(file.name))
            moved.append(place)
    except (OSError, TargetTakenError) as error:
        for place in moved:
            place.unlink(missing_ok=True)
        raise unwritable(target, error) if isinstance(error, OSError) else error from None


def external_files(path: Path) -> frozenset[str]:
    """Names of the files beside an ONNX file in which it keeps weights; of no model, none."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:
        return frozenset()
    names = (
        ExternalDataInfo(tensor).location
        for tensor in proto.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    )
    return frozenset(name for name in names if Path(name).name == name)


def unwritable(target: Path, error: OSError) -> ExportError:
    """What to say when the disk or its permissions stand in the way."""
    return ExportError(
        f"{target} cannot be written: {error.strerror or error}",
        advice="create the folder, choose one that you may write to, or make room on the disk",
    )
