"""A module as an ONNX file: torch's exporter, then names, axes and metadata put in order."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnxscript.optimizer import fold_constants
from torch import nn

from cerewrite.errors import ExportError
from cerewrite.exporter.empty import answer_empty
from cerewrite.exporter.fold import drop_idle_biases, exact_tensors, fold_norms
from cerewrite.exporter.inputs import ExampleInputs
from cerewrite.exporter.layout import keep_members_first
from cerewrite.exporter.placing import unwritable
from cerewrite.exporter.reasons import reason
from cerewrite.runtime.alone import muted

Shape = tuple[int | str, ...]

EXTERNAL_ABOVE = 1_900_000_000
"""Bytes of weights above which they go to a file of their own; protobuf ends at 2 GiB."""

_DROPPED = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")


def write_onnx(
    model: nn.Module,
    path: Path,
    example: ExampleInputs,
    outputs: Sequence[str],
    *,
    opset: int,
    external_data: bool | None,
    metadata: Mapping[str, str],
    exact: nn.Module | None = None,
) -> None:
    """Translate ``model``, in evaluation mode, and write ``path`` (and ``path.data``).

    Args:
        model: the module.
        path: file to write; its folder exists.
        example: arguments of at least two rows.
        outputs: names of the output tensors, in leaf order.
        opset: operator set version.
        external_data: weights in a file of their own; None for only where they exceed
            `EXTERNAL_ABOVE`.
        metadata: what to store in the file.
        exact: the same model in float32, where ``model`` was rounded from it.

    Raises:
        ExportError: if torch cannot trace, translate or write the model.
    """
    arguments = example.resized(example.batch)
    shapes = example.dynamic_shapes(torch.export.Dim)
    try:
        with muted():
            program = torch.onnx.export(
                model,
                # torch.onnx takes a trailing dict for keyword arguments unless one follows.
                () if isinstance(arguments, dict) else (*arguments, {}),
                kwargs=arguments if isinstance(arguments, dict) else None,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
            assert program is not None
            fold_constants(program.model)
            drop_idle_biases(program.model.graph)
            fold_norms(program.model.graph, {} if exact is None else exact_tensors(exact))
            program.optimize()
            graph = program.model.graph
            _rename(graph, example.tensor_names(), outputs)
            _name_batch(graph, set(example.batched_names()))
            keep_members_first(graph)
            answer_empty(graph)
            _stamp(program.model, metadata)
            if external_data is None:
                external_data = _bytes(graph) > EXTERNAL_ABOVE
            program.save(path, external_data=external_data)
    except OSError as error:
        raise unwritable(path, error) from error
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX at opset {opset}: {reason(error)}",
            advice="change the operation that it names; `torch.export.export` shows the same",
        ) from error


def versions() -> dict[str, str]:
    """Versions that an ONNX file records: the packages' and Python's."""
    found = {"python": platform.python_version()}
    for package in ("cerewrite", "torch", "onnx", "onnxscript"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "uninstalled"
    return found


def read_ends(graph: Iterable[onnx.ValueInfoProto]) -> tuple[tuple[str, Shape], ...]:
    """Names and shapes of a graph's inputs or outputs, a symbolic axis by its name."""
    return tuple(
        (
            value.name,
            tuple(
                axis.dim_param or (axis.dim_value if axis.HasField("dim_value") else "?")
                for axis in value.type.tensor_type.shape.dim
            ),
        )
        for value in graph
    )


def _rename(graph: onnx_ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise RuntimeError(
            f"torch.onnx made {len(graph.inputs)} inputs and {len(graph.outputs)} outputs of "
            f"{len(inputs)} and {len(outputs)}"
        )
    taken = {*inputs, *outputs}
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for value in _values(graph):
        if id(value) not in ends and value.name in taken:
            value.name = f"{value.name}_inner"
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name


def _name_batch(graph: onnx_ir.Graph, batched: set[str]) -> None:
    """Call the batch axis ``batch`` everywhere; torch leaves ``s77`` beside a constant input."""
    symbols = {
        str(value.shape[0])
        for value in graph.inputs
        if value.name in batched and value.shape is not None and not isinstance(value.shape[0], int)
    } - {"batch"}
    if not symbols:
        return
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(symbols)))})\b")

    def named(axis: int | onnx_ir.SymbolicDim) -> int | str | None:
        if isinstance(axis, int) or axis.value is None:
            return axis if isinstance(axis, int) else None
        return pattern.sub("batch", str(axis.value))

    for value in _values(graph):
        if value.shape is not None:
            value.shape = onnx_ir.Shape([named(axis) for axis in value.shape])


def _stamp(model: onnx_ir.Model, metadata: Mapping[str, str]) -> None:
    """Name the producer, store the metadata, drop source paths (they leak, and bloat)."""
    stamp = versions()
    model.producer_name = "cerewrite"
    model.producer_version = stamp["cerewrite"]
    model.metadata_props["producer"] = "cerewrite"
    model.metadata_props.update({f"version.{name}": text for name, text in stamp.items()})
    model.metadata_props.update({str(key): str(text) for key, text in metadata.items()})
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        for key in _DROPPED:
            node.metadata_props.pop(key, None)


def _values(graph: onnx_ir.Graph) -> Iterator[Any]:
    yield from graph.inputs
    yield from list(graph.initializers.values())
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs


def _bytes(graph: onnx_ir.Graph) -> int:
    tensors = (value.const_value for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
