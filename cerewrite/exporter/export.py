"""`export_onnx`: write, check, prove; then, and only then, put the file in its place."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import nn

from cerewrite import ir
from cerewrite.errors import (
    CerewriteError,
    ExportError,
    own_line,
)
from cerewrite.exporter.checks import describe, require_sound, require_values
from cerewrite.exporter.degenerate import degenerate_parameters, perturbed, silent_outputs
from cerewrite.exporter.empty import NoAnswer
from cerewrite.exporter.inputs import DynamicAxes, ExampleInputs, call, named_tensors
from cerewrite.exporter.locate import first_difference
from cerewrite.exporter.members import with_members
from cerewrite.exporter.parity import (
    BATCHES,
    compare,
    compare_empty,
    default_limit,
    require_batches,
)
from cerewrite.exporter.placing import publish, staging
from cerewrite.exporter.precision import cast, cast_inputs, widened
from cerewrite.exporter.reasons import reason
from cerewrite.exporter.runner import Runner
from cerewrite.exporter.translate import write_onnx
from cerewrite.ir.inputs import Inputs
from cerewrite.rewriting import is_rewritten, revert
from cerewrite.runtime.copies import deep_copy
from cerewrite.runtime.modes import undisturbed


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: ir.Inputs,
    *,
    opset: int = 20,
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
    limit: float | None = None,
    external_data: bool | None = None,
    metadata: Mapping[str, str] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    float16: bool = False,
    overwrite: bool = True,
    members: str | None = None,
) -> ir.Export:
    """Write ``model`` as an ONNX file with a dynamic batch and prove it in ONNX Runtime.

    The model is exported in evaluation mode and is left bit for bit as it was, its training
    flags included. Inputs keep the names of ``forward``'s arguments; outputs are named by their
    keys, or ``output`` (``output_0``, ...). Between block-diagonal linears the file keeps
    members first (see `cerewrite.exporter.layout`). It appears under ``path`` only after onnx's
    checker and the parity checks passed (see `cerewrite.exporter.check_parity`).

    Weights that are zero would make parity vacuous, a zero-initialised head above all. So where
    an output does not change with the input, or a weight is zero throughout, a copy of the model
    with those weights redrawn is exported to a temporary file and checked as well; its records
    carry a note.

    Args:
        model: the module, on any device with real weights.
        path: file to write; an existing one is replaced, its external data included, unless
            ``overwrite`` is false.
        example_inputs: arguments of ``forward``, in order or by name; the batch is the first
            axis. One row is enough: it is repeated, for torch bakes a batch of 1 into the graph.
        opset: operator set version; refused if torch does not honour it.
        batches: batch sizes at which parity is checked. 0 is asked for in a process of its own,
            and left out where the model itself refuses it; where ONNX Runtime has no answer to it
            for the file of the model that was rewritten either, a record's note says so.
        seed: seed of the random inputs.
        limit: largest relative error; None for 1e-5, or 1e-3 for a model in 16 bits.
        external_data: weights in ``path.data`` beside the file; None for only where they exceed
            1.9 GB.
        metadata: further entries for the file's ``metadata_props``.
        dynamic_axes: further axes that may vary, by input: ``{"x": [2, 3]}``, or with symbols,
            ``{"x": {2: "height", 3: "width"}}``; axes of one symbol have one size.
        float16: export a copy in half precision, its floating-point inputs included; parity is
            then with the model itself in float32, so that the limit covers the rounding of its
            weights too.
        overwrite: whether a file at ``path`` may be replaced.
        members: for a model whose members can be asked (`cerewrite.members`): ``each`` adds an
            output ``members`` ``[batch, m, ...]``, ``disagreement`` one of the members' standard
            deviation ``[batch, ...]``; parity holds for every member alone.

    Returns:
        Path, opset, nodes, bytes (external data included), parity records, inputs and outputs.

    Raises:
        UsageError: if no batch size is above 0.
        ExportError: if the model cannot be exported, the opset is not honoured, the batch axis
            or one of ``dynamic_axes`` is not symbolic, the file is not valid, parity fails (the
            message names the first module that differs), or ``path`` cannot be written. Nothing
            is left behind then.
        TargetTakenError: if another run is writing ``path``, or it is there and must stay.

    Example:
        >>> import torch
        >>> folder = tempfile.mkdtemp()
        >>> record = export_onnx(nn.Linear(4, 2), f"{folder}/net.onnx", (torch.randn(2, 4),))
        >>> record.inputs, record.outputs
        ((('input', ('batch', 4)),), (('output', ('batch', 2)),))
    """
    target = Path(path)
    require_values(model)
    require_batches(batches)
    if members is not None:
        model = with_members(model, example_inputs, members)
        metadata = {**(metadata or {}), "members": str(model.asked.count)}
    exact = None
    if float16:
        exact = widened(model)
        model = cast(model, torch.float16)
        example_inputs = cast_inputs(example_inputs, torch.float16)
    limit = default_limit(model) if limit is None else limit
    example = ExampleInputs.of(model, example_inputs, dynamic_axes)
    with staging(target) as draft:
        _write(model, draft, example, opset, external_data, metadata or {}, exact)
        require_sound(draft, example, opset)
        parity = _prove(model, draft, example, batches, seed, limit, exact)
        if blind := degenerate_parameters(model, example, seed):
            with tempfile.TemporaryDirectory(dir=draft.parent) as folder:
                copy = Path(folder, draft.name)
                twin = perturbed(model if exact is None else exact, seed)
                if exact is not None:
                    twin, exact = cast(twin, torch.float16), twin
                _write(twin, copy, example, opset, None, {}, exact)
                note = f"a copy with random weights: {blind}" + _still(twin, example, seed)
                parity += _prove(twin, copy, example, batches, seed, limit, exact, note)
        export = describe(draft, target, parity)
        publish(draft, target, overwrite=overwrite)
    return export


def _prove(
    model: nn.Module,
    draft: Path,
    example: ExampleInputs,
    batches: Sequence[int],
    seed: int,
    limit: float,
    exact: nn.Module | None,
    note: str = "",
) -> tuple[ir.Parity, ...]:
    """Parity, all of it passed; or an error that says where the file begins to differ."""

    def pairs_at(batches: Sequence[int]) -> list[tuple[ir.Parity, Inputs]]:
        asked = partial(compare, model, draft, example, batches, seed=seed, limit=limit)
        return asked(note=note, exact=exact)

    try:
        pairs = pairs_at(batches)
    except NoAnswer as error:
        if _original_answers(model, draft, example):
            raise
        pairs = pairs_at([batch for batch in batches if batch])
        text = "; ".join(filter(None, (pairs[0][0].note, f"as for the original, {error.message}")))
        pairs[0] = dataclasses.replace(pairs[0][0], note=text), pairs[0][1]
    failed = [pair for pair in pairs if not pair[0].passed]
    if not failed:
        return tuple(record for record, _ in pairs)
    figures = ", ".join(
        f"{record.relative_error:.1e} at batch {record.batch}"
        + (f" ({record.note})" if record.note else "")
        for record, _ in failed
    )
    where = first_difference(model, draft, example, failed[0][1], limit)
    raise ExportError(
        f"{draft.name}: PyTorch and ONNX Runtime differ by {figures}, relative, "
        f"against a limit of {limit:.0e}; "
        f"{where or 'no single module differs by more'}; nothing was written",
        advice="export in float64 to tell rounding from a wrong operator; "
        "only if it is rounding, raise the limit",
    )


def _original_answers(model: nn.Module, draft: Path, example: ExampleInputs) -> bool:
    """Whether ONNX Runtime answers an empty batch with the file of the model before its rewrite.

    True where that file cannot be made, and False where there is no such model.
    """
    if not is_rewritten(model):
        return False
    try:
        original = revert(deep_copy(model))
        original = cast(original, next(model.parameters()).dtype)
        with tempfile.TemporaryDirectory(dir=draft.parent) as folder:
            file = Path(folder, draft.name)
            proto = onnx.load(draft, load_external_data=False)
            opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
            _write(original, file, example, opset, None, {})
            compare_empty(original, file, Runner(file), example)
    except NoAnswer:
        return False
    except CerewriteError:
        return True
    return True


def _write(
    model: nn.Module,
    draft: Path,
    example: ExampleInputs,
    opset: int,
    external_data: bool | None,
    metadata: Mapping[str, str],
    exact: nn.Module | None = None,
) -> None:
    raised = example.raised()
    with undisturbed(model):
        try:
            outputs = call(model, raised.resized(raised.batch))
        except CerewriteError:  # a fault with a name of its own
            raise
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__} fails on its example inputs: {reason(error)}"
                f"{own_line(error)}",
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
            exact=exact,
        )


def _still(twin: nn.Module, example: ExampleInputs, seed: int) -> str:
    silent = silent_outputs(twin, example, seed)
    return f"; {', '.join(silent)} does not change with the input even so" if silent else ""
