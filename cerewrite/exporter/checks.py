"""What a model must be to be exported, and what the written file must be."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from torch import nn

from cerewrite import ir
from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs
from cerewrite.exporter.reasons import reason
from cerewrite.exporter.translate import read_ends


def require_values(model: nn.Module) -> None:
    """Refuse a model without values.

    Raises:
        ExportError: if a tensor is on the meta device.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ExportError(
                f"{type(model).__name__}: '{name}' is on the meta device and has no values",
                advice="build the model on a real device, or load its weights, before exporting",
            )


def require_sound(draft: Path, example: ExampleInputs, opset: int) -> None:
    """Refuse a file of another opset, with a fixed axis that should vary, or not valid.

    Raises:
        ExportError: if it is one of these.
    """
    proto = onnx.load(draft, load_external_data=False)
    written = next((entry.version for entry in proto.opset_import if entry.domain == ""), 0)
    if written != opset:
        raise ExportError(
            f"opset not honoured: {opset} was asked for and torch.onnx wrote {written}",
            advice=f"ask for opset {max(written, 18)} or another between 18 and 24",
        )
    shapes = dict(read_ends(proto.graph.input))
    varying = [(name, 0, "batch axis") for name in example.batched_names()]
    varying += [(name, axis, f"axis {axis}") for name, axis, _ in example.open]
    for name, axis, what in varying:
        if not isinstance(shapes[name][axis], str):
            raise ExportError(
                f"input '{name}' has shape {shapes[name]}: its {what} is fixed in the file",
                advice="keep sizes out of constants: use x.shape[0] or -1 in views",
            )
    try:
        onnx.checker.check_model(os.fspath(draft))
    except Exception as error:
        raise ExportError(
            f"onnx's checker refuses the file: {reason(error)}",
            advice="try another opset",
        ) from error


def describe(draft: Path, target: Path, parity: tuple[ir.Parity, ...]) -> ir.Export:
    """What a proved file is."""
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
