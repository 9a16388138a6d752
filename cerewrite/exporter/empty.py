"""Batches of no examples: a server is sent them, and one must not end it.

ONNX Runtime fuses a transpose into the product that reads it (`MatmulTransposeFusion`). Where the
transpose moves the first axis behind others, the fused product divides by the number of rows: a
batch of 0 ends the process with SIGFPE. Where the other operand has other leading axes, it
refuses a batch of 0. A reshape between the two that copies every size keeps them apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from cerewrite.errors import ExportError
from cerewrite.exporter.forms import attribute, axes, constant
from cerewrite.exporter.runner import Array

WAIT = 600.0
"""Seconds that an empty batch may take, loading the file included."""

_CHILD = """\
import json, sys
model, feed, sys.path[:] = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
try:
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with numpy.load(feed) as held:
        outputs = session.run(None, {name: held[name] for name in held.files})
except Exception as error:
    sys.exit(" ".join(str(error).split()))
names = [value.name for value in session.get_outputs()]
print(json.dumps([[n, list(o.shape), str(o.dtype)] for n, o in zip(names, outputs)]))
"""


class NoAnswer(ExportError):
    """ONNX Runtime gives no answer to an empty batch, or does not live through it."""


def answer(path: Path, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs for an empty batch, computed in a process of its own.

    Args:
        path: an ONNX file.
        feed: its inputs by name, some of which hold nothing.

    Returns:
        Empty arrays, or zeros where an output does not carry the batch, of the shapes and types
        of the outputs.

    Raises:
        NoAnswer: if ONNX Runtime refuses, or the process ends.
    """
    held = path.with_name(f".{path.name}.empty.npz")
    try:
        named: dict[str, Any] = dict(feed)
        np.savez(held, **named)
        command = [sys.executable, "-c", _CHILD, os.fspath(path), os.fspath(held)]
        done = subprocess.run(
            [*command, json.dumps(sys.path)], capture_output=True, text=True, timeout=WAIT
        )
    except subprocess.TimeoutExpired:
        raise no_answer(path, f"none within {WAIT:.0f} s") from None
    finally:
        held.unlink(missing_ok=True)
    if done.returncode < 0:
        raise no_answer(path, f"the process ends with signal {-done.returncode}")
    if done.returncode:
        raise no_answer(path, done.stderr.partition("Status Message")[0].strip()[:200])
    return {name: np.zeros(shape, kind) for name, shape, kind in json.loads(done.stdout)}


def no_answer(path: Path, why: str) -> NoAnswer:
    """What to say where an empty batch has no answer."""
    return NoAnswer(
        f"{path.name}: ONNX Runtime has no answer to a batch of 0 examples: {why}",
        advice="send it no empty batch, or export with batches=(1, 2, 7) to leave this check out",
    )


def answer_empty(graph: onnx_ir.Graph) -> None:
    """Mend, in place, what has no answer to a batch of 0."""
    name_sizes(graph)
    keep_apart(graph)


def name_sizes(graph: onnx_ir.Graph) -> None:
    """Write down sizes that reshapes leave open beside a copied one: 0 rows do not tell them.

    Args:
        graph: a graph with the shapes of its values.
    """
    for node in list(graph):
        if node.op_type != "Reshape" or attribute(node, "allowzero", 0):
            continue
        target = node.inputs[1]
        shape = axes(node.outputs[0])
        if target is None or target.const_value is None or shape is None:
            continue
        sizes = target.const_value.numpy().tolist()
        if len(sizes) != len(shape) or 0 not in sizes or -1 not in sizes:
            continue
        known = shape[sizes.index(-1)]
        if isinstance(known, int):
            sizes[sizes.index(-1)] = known
            named = constant(graph, f"{target.name}_of_{node.outputs[0].name}", np.array(sizes))
            node.replace_input_with(1, named)


def keep_apart(graph: onnx_ir.Graph) -> int:
    """Put a reshape between every transpose and product that fail together at a batch of 0.

    Args:
        graph: a graph with the shapes of its values.

    Returns:
        How many were put in.
    """
    done = 0
    for node in list(graph):
        if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
            continue
        for index, value in enumerate(node.inputs):
            other = node.inputs[1 - index]
            turn = None if value is None else _transpose(value)
            if turn is None or value is None or value.is_graph_output():
                continue
            if _fails(turn, other):
                node.replace_input_with(index, _between(graph, node, value))
                done += 1
    return done


def _transpose(value: Value) -> Node | None:
    """The transpose that a product would be fused with, if any: behind casts at most."""
    node = value.producer()
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "Transpose":
        return None
    return node


def _fails(turn: Node, other: Value | None) -> bool:
    """Whether the fused product would have no answer to a batch of 0."""
    shape = axes(turn.inputs[0])
    if shape is None or all(isinstance(size, int) for size in shape) or len(shape) < 3:
        return False
    order = tuple(attribute(turn, "perm", tuple(reversed(range(len(shape))))))
    last = len(order) - 1
    if 0 in order[-2:]:
        return order[:-2] == tuple(range(1, last))
    if order[-2:] != (last, last - 1):
        return False
    lead, theirs = shape[:-2], axes(other)
    return theirs is None or theirs[:-2] != lead


def _between(graph: onnx_ir.Graph, node: Node, value: Value) -> Value:
    """A value that is the same and that no fusion looks through."""
    turn = _transpose(value)
    rank = len(axes(value) or axes(turn.inputs[0] if turn else None) or ())
    copied = constant(graph, f"{value.name}_sizes_of_{node.name}", np.zeros(rank, dtype=np.int64))
    reshape = onnx_ir.node("Reshape", [value, copied])
    reshape.name = f"{node.name}_apart_{value.name}"
    reshape.metadata_props.update(node.metadata_props)
    found = reshape.outputs[0]
    found.name, found.shape, found.type = f"{reshape.name}_out", value.shape, value.type
    graph.insert_before(node, reshape)
    return found
