"""`export_onnx`: write, check, prove; then, and only then, put the file in its place."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from cerewrite import ir
from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs, call, named_tensors
from cerewrite.exporter.parity import check_parity, hidden_weights, perturbed, silent_outputs
from cerewrite.exporter.quiet import evaluating, reason
from cerewrite.exporter.translate import read_ends, write_onnx


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: tuple[Any, ...] | Mapping[str, Any],
    *,
    opset: int = 20,
    batches: Sequence[int] = (1, 2, 7),
    seed: int = 0,
    limit: float = 1e-5,
    external_data: bool | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ir.Export:
    """Write ``model`` as an ONNX file with a dynamic batch and prove it in ONNX Runtime.

    The model is exported in evaluation mode and is left bit for bit as it was, its training
    flags included. Inputs keep the names of ``forward``'s arguments; outputs are named by their
    keys, or ``output`` (``output_0``, ...). The file appears under ``path`` only after onnx's
    checker and the parity checks passed (see `cerewrite.exporter.check_parity`).

    Weights that are zero would make parity vacuous, a zero-initialised head above all. So where
    an output does not change with the input, or a weight is zero throughout, a copy of the model
    with those weights redrawn is exported to a temporary file and checked as well; its records
    carry a note.

    Args:
        model: the module, on any device with real weights.
        path: file to write; an existing one is replaced.
        example_inputs: arguments of ``forward``, in order or by name; the batch is the first
            axis. One row is enough: it is repeated, for torch bakes a batch of 1 into the graph.
        opset: operator set version; refused if torch does not honour it.
        batches: batch sizes at which parity is checked.
        seed: seed of the random inputs.
        limit: largest relative error; take 1e-3 for a model in float16.
        external_data: weights in ``path.data`` beside the file; None for only where they exceed
            1.9 GB.
        metadata: further entries for the file's ``metadata_props``.

    Returns:
        Path, opset, nodes, bytes (external data included), parity records, inputs and outputs.

    Raises:
        ExportError: if the model cannot be exported, the opset is not honoured, the batch axis
            is not symbolic, the file is not valid, parity fails, or ``path`` cannot be written.
            Nothing is left behind then.

    Example:
        >>> import torch
        >>> folder = tempfile.mkdtemp()
        >>> record = export_onnx(nn.Linear(4, 2), f"{folder}/net.onnx", (torch.randn(2, 4),))
        >>> record.inputs, record.outputs
        ((('input', ('batch', 4)),), (('output', ('batch', 2)),))
    """
    target = Path(path)
    _require_values(model)
    example = ExampleInputs.of(model, example_inputs)
    with _staging(target) as draft:
        _write(model, draft, example, opset, external_data, metadata or {})
        _require_sound(draft, example, opset)
        check = functools.partial(check_parity, batches=batches, seed=seed, limit=limit)
        parity = check(model, draft, example_inputs)
        if blind := _blind_spots(model, example, seed):
            with tempfile.TemporaryDirectory(dir=draft.parent) as folder:
                twin, copy = perturbed(model, seed), Path(folder, draft.name)
                _write(twin, copy, example, opset, None, {})
                note = f"a copy with random weights: {blind}" + _still(twin, example, seed)
                parity += check(twin, copy, example_inputs, note=note)
        _require_parity(parity, target)
        export = _describe(draft, target, parity)
        _publish(draft, target)
    return export


def _write(
    model: nn.Module,
    draft: Path,
    example: ExampleInputs,
    opset: int,
    external_data: bool | None,
    metadata: Mapping[str, str],
) -> None:
    raised = example.raised()
    with evaluating(model):
        try:
            outputs = call(model, raised.resized(raised.batch))
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__} fails on its example inputs: {reason(error)}",
                advice="check the example's shapes and dtypes",
            ) from error
        names = [name for name, _ in named_tensors(outputs, example.tensor_names())]
        del outputs
        write_onnx(
            model,
            draft,
            raised,
            names,
            opset=opset,
            external_data=external_data,
            metadata=metadata,
        )


def _blind_spots(model: nn.Module, example: ExampleInputs, seed: int) -> str:
    """Why parity on the model as it stands would be vacuous, at least in part; else ""."""
    if hidden := hidden_weights(model):
        more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        return f"{hidden[0]}{more} near zero"
    if silent := silent_outputs(model, example, seed):
        return f"{', '.join(silent)} does not change with the input"
    return ""


def _still(twin: nn.Module, example: ExampleInputs, seed: int) -> str:
    silent = silent_outputs(twin, example, seed)
    return f"; {', '.join(silent)} does not change with the input even so" if silent else ""


def _require_values(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ExportError(
                f"{type(model).__name__}: '{name}' is on the meta device and has no values",
                advice="build the model on a real device, or load its weights, before exporting",
            )


def _require_sound(draft: Path, example: ExampleInputs, opset: int) -> None:
    proto = onnx.load(draft, load_external_data=False)
    written = next((entry.version for entry in proto.opset_import if entry.domain == ""), 0)
    if written != opset:
        raise ExportError(
            f"opset not honoured: {opset} was asked for and torch.onnx wrote {written}",
            advice=f"ask for opset {max(written, 18)} or another between 18 and 24",
        )
    shapes = dict(read_ends(proto.graph.input))
    for name in example.batched_names():
        if not isinstance(shapes[name][0], str):
            raise ExportError(
                f"input '{name}' has shape {shapes[name]}: its batch axis is fixed in the file",
                advice="keep the batch size out of constants: use x.shape[0] or -1 in views",
            )
    try:
        onnx.checker.check_model(os.fspath(draft))
    except Exception as error:
        raise ExportError(
            f"onnx's checker refuses the file: {reason(error)}",
            advice="try another opset",
        ) from error


def _require_parity(parity: tuple[ir.Parity, ...], target: Path) -> None:
    failed = [record for record in parity if not record.passed]
    if failed:
        figures = ", ".join(
            f"{record.relative_error:.1e} at batch {record.batch}"
            + (f" ({record.note})" if record.note else "")
            for record in failed
        )
        raise ExportError(
            f"{target.name}: PyTorch and ONNX Runtime differ by {figures}, relative, "
            f"against a limit of {failed[0].limit:.0e}; nothing was written",
            advice="export in float64 to tell rounding from a wrong operator; "
            "only if it is rounding, raise the limit",
        )


def _describe(draft: Path, target: Path, parity: tuple[ir.Parity, ...]) -> ir.Export:
    proto = onnx.load(draft, load_external_data=False)
    return ir.Export(
        path=os.fspath(target),
        opset=next(entry.version for entry in proto.opset_import if entry.domain == ""),
        nodes=len(proto.graph.node),
        size=sum(file.stat().st_size for file in draft.parent.iterdir()),
        parity=parity,
        inputs=read_ends(proto.graph.input),
        outputs=read_ends(proto.graph.output),
    )


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A file of the target's name in a temporary folder beside it, removed in the end.

    External data is found by its name, so the file must be written under its final one.
    """
    if target.is_dir():
        raise ExportError(f"{target} is a folder", advice="name a file, such as model.onnx")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ExportError(
            f"{target} cannot be written: {error.strerror or error}",
            advice="create the folder, or choose one that you may write to",
        ) from error
    try:
        yield folder / target.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(draft: Path, target: Path) -> None:
    """Move the staged files to their place, the model itself last."""
    staged = sorted(draft.parent.iterdir(), key=lambda file: file.name == draft.name)
    try:
        for file in staged:
            os.replace(file, target.with_name(file.name))
    except OSError as error:
        raise ExportError(
            f"{target} cannot be written: {error.strerror or error}",
            advice="choose a folder that you may write to",
        ) from error
