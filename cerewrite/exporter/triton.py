"""A Triton model repository: ``config.pbtxt`` made of what the ONNX file says about itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx

from cerewrite.errors import ExportError
from cerewrite.exporter.translate import Shape, read_ends

KINDS = {
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.UINT16: "TYPE_UINT16",
    onnx.TensorProto.UINT32: "TYPE_UINT32",
    onnx.TensorProto.UINT64: "TYPE_UINT64",
    onnx.TensorProto.INT8: "TYPE_INT8",
    onnx.TensorProto.INT16: "TYPE_INT16",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.STRING: "TYPE_STRING",
    onnx.TensorProto.BFLOAT16: "TYPE_BF16",
}

_CONFIG = """\
# {about}
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
{ends}{batching}"""

_BATCHING = "dynamic_batching { }\n"


def triton_config(path: str | os.PathLike[str], name: str, *, max_batch_size: int = 32) -> str:
    """``config.pbtxt`` for an ONNX file, in protobuf's text format.

    Names, types and dimensions are the file's own; an axis that varies is -1. The batch axis,
    which Triton adds itself, is left out. If some input or output has none, Triton cannot batch
    the model: ``max_batch_size`` is 0 then, all axes are listed, and there is no dynamic
    batching.

    Args:
        path: the ONNX file.
        name: the model's name in the repository.
        max_batch_size: largest batch that the server may form.

    Raises:
        ExportError: if the name or a type is none that Triton has.

    Reference:
        Triton Inference Server, Model Configuration (model_config.proto).
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ExportError(
            f"'{name}' is no name for a model repository",
            advice="use letters, digits, dots, dashes and underscores",
        )
    proto = onnx.load(os.fspath(path), load_external_data=False)
    sides = (("input", proto.graph.input), ("output", proto.graph.output))
    batched = all(_batched(shape) for _, side in sides for _, shape in read_ends(side))
    ends = ""
    for label, side in sides:
        for value, (end, shape) in zip(side, read_ends(side), strict=True):
            kind = KINDS.get(value.type.tensor_type.elem_type)
            if kind is None:
                raise ExportError(
                    f"{Path(path).name}: '{end}' has a type that Triton does not know",
                    advice="export with another type of input or output",
                )
            ends += _end(label, end, kind, shape[1:] if batched else shape)
    about = "written by cerewrite from model.onnx"
    if not batched:
        about += "; not every input and output has the batch as its first axis: no batching"
    return _CONFIG.format(
        about=about,
        name=name,
        batch=max_batch_size if batched else 0,
        ends=ends,
        batching=_BATCHING if batched else "",
    )


def _batched(shape: Shape) -> bool:
    return bool(shape) and shape[0] == "batch"


def _end(label: str, name: str, kind: str, shape: Shape) -> str:
    """One input or output; Triton wants an axis where the model has none besides the batch."""
    sizes = [axis if isinstance(axis, int) else -1 for axis in shape]
    reshape = "" if shape else "  reshape: { shape: [ ] }\n"
    lines = f"  name: {_quoted(name)}\n  data_type: {kind}\n  dims: {sizes or [1]}\n{reshape}"
    return f"{label} {{\n{lines}}}\n"


def _quoted(name: str) -> str:
    """A string of protobuf's text format, whatever the name holds."""
    escaped = re.sub(r'["\\\x00-\x1f\x7f]', lambda match: f"\\{ord(match[0]):03o}", name)
    return f'"{escaped}"'
