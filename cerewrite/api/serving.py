"""For inference servers: a model repository, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from cerewrite import ir, output
from cerewrite.api.options import ExportOptions
from cerewrite.api.stages import export_onnx

if TYPE_CHECKING:
    from torch import nn

CONFIG = "config.pbtxt"
VERSION = "1"


def export_triton(
    model: nn.Module,
    repository: str | os.PathLike[str],
    example_inputs: object = None,
    *,
    name: str | None = None,
    max_batch_size: int = 32,
    overwrite: bool = False,
    **options: Unpack[ExportOptions],
) -> ir.Export:
    """Write ``REPOSITORY/NAME/1/model.onnx`` and ``REPOSITORY/NAME/config.pbtxt``.

    The ONNX file is proved as by `cerewrite.export_onnx`; the configuration is made of what the
    file says (`cerewrite.exporter.triton_config`), with dynamic batching. ``REPOSITORY/NAME``
    appears complete, or not at all; the server never sees half of it.

    Args:
        model: any module.
        repository: the model repository; made if need be, its other models are left alone.
        example_inputs: as for `cerewrite.export_onnx`.
        name: the model's name; by default its class's, in lower case.
        max_batch_size: largest batch that the server may form.
        overwrite: replace an earlier export of that name.
        options: those of `cerewrite.export_onnx`.

    Raises:
        ExportError: see `cerewrite.export_onnx`; also if the name is none that Triton takes.
        OutputError: if ``REPOSITORY/NAME`` exists or cannot be written.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> record = export_triton(torch.nn.Linear(4, 2), folder, torch.randn(2, 4))
        >>> sorted(path.name for path in (Path(folder) / "linear").iterdir())
        ['1', 'config.pbtxt']
    """
    from cerewrite import exporter

    name = name or default_name(type(model).__name__)
    target = Path(repository) / name
    with output.staged_folder(target, overwrite=overwrite, ours=(CONFIG, VERSION)) as draft:
        (draft / VERSION).mkdir()
        file = draft / VERSION / output.ONNX
        export = export_onnx(model, file, example_inputs, **options)
        text = exporter.triton_config(file, name, max_batch_size=max_batch_size)
        (draft / CONFIG).write_text(text, encoding="utf-8")
    return dataclasses.replace(export, path=os.fspath(target / VERSION / output.ONNX))


def check_repository(repository: str, name: str, *, overwrite: bool) -> None:
    """Check before any long work that `export_triton` can write.

    Raises:
        OutputError: if it cannot.
    """
    output.check_target(
        Path(repository) / name, folder=True, overwrite=overwrite, ours=(CONFIG, VERSION)
    )


def default_name(kind: str) -> str:
    """A class's name as a model's name.

    Example:
        >>> default_name("ResNet")
        'resnet'
    """
    return re.sub(r"\W+", "_", kind).lower()
