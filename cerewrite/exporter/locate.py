"""Where an ONNX file begins to differ: the first module whose output is not the same."""

from __future__ import annotations

import ast
import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor, nn

from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs, call
from cerewrite.exporter.parity import relative_error
from cerewrite.exporter.runner import Array, Runner, as_array
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.modes import undisturbed

SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first module, in the order of the graph, whose output differs.

    Attributes:
        module: its qualified name; "" is the model itself.
        kind: its class.
        operators: ONNX operators that it became, in order.
        relative_error: as in `cerewrite.exporter.check_parity`.
    """

    module: str
    kind: str
    operators: tuple[str, ...]
    relative_error: float

    def __str__(self) -> str:
        where = f"'{self.module}'" if self.module else "the model's own forward"
        return (
            f"the first difference is at {where} ({self.kind}, in ONNX "
            f"{', '.join(self.operators)}): {self.relative_error:.1e}"
        )


def first_difference(
    model: nn.Module, path: Path, example: ExampleInputs, arguments: Inputs, limit: float
) -> Difference | None:
    """Compare every module's output in PyTorch with the same value inside the ONNX file.

    Only modules called once, with one tensor as output, take part. A value that the file keeps
    with members first (`cerewrite.exporter.layout`) is turned back before it is compared.

    Args:
        model: the module that the file was made of.
        path: the file, with the module scopes that torch.onnx records; changed in no way.
        example: the model's example inputs.
        arguments: what to run both on.
        limit: largest relative error that counts as the same.

    Returns:
        The first module beyond the limit; None if there is none.
    """
    proto = onnx.load(path, load_external_data=False)
    ends, operators = _ends(proto.graph)
    with undisturbed(model), _recording(model, ends) as outputs:
        call(model, arguments)
    wanted = {name: outputs[name] for name in ends if name in outputs}
    found = _inside(proto, path, example, arguments, [ends[name] for name in wanted])
    for name, array in wanted.items():
        error = _error(array, found[ends[name]])
        if error > limit:
            kind = type(model.get_submodule(name)).__name__
            return Difference(name, kind, operators[name], error)
    return None


def _ends(graph: onnx.GraphProto) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Per module the last value computed in it, in the graph's order; and its own operators."""
    last: dict[str, str] = {}
    operators: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        text = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        scopes = ast.literal_eval(text)[:-1]
        for name in reversed(scopes):
            last.pop(name, None)
            last[name] = node.output[0]
        if scopes:
            operators[scopes[-1]] = (*operators.get(scopes[-1], ()), node.op_type)
    return {name: value for name, value in last.items() if name in operators}, operators


@contextlib.contextmanager
def _recording(model: nn.Module, names: Mapping[str, Any]) -> Iterator[dict[str, Array]]:
    """Outputs of the modules of those names, filled in as they run; repeated calls are dropped."""
    outputs: dict[str, Array] = {}
    calls: Counter[str] = Counter()
    handles = []
    try:
        for name in names:
            with contextlib.suppress(AttributeError):
                module = model.get_submodule(name)
                hook = _hook(name, outputs, calls)
                handles.append(module.register_forward_hook(hook))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, outputs: dict[str, Array], calls: Counter[str]) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        calls[name] += 1
        if calls[name] == 1 and isinstance(output, Tensor):
            outputs[name] = as_array(output, name).copy()
        else:
            outputs.pop(name, None)

    return hook


def _inside(
    proto: onnx.ModelProto,
    path: Path,
    example: ExampleInputs,
    arguments: Inputs,
    values: list[str],
) -> dict[str, Array]:
    """Run a copy of the file that gives those values away as outputs."""
    known = {value.name for value in proto.graph.output}
    new = [name for name in dict.fromkeys(values) if name not in known]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
    probe = path.with_name(f".{path.name}.probe")
    try:
        onnx.save(proto, probe)
        return Runner(probe)(example, arguments, path.name)
    except OSError as error:
        raise ExportError(
            f"{probe} cannot be written: {error.strerror or error}",
            advice="make room on the disk",
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def _error(wanted: Array, found: Array) -> float:
    """The relative error; with members first or not, whichever is nearer. 0 if of other size."""
    if wanted.size != found.size:
        return 0.0
    ways = [found.reshape(wanted.shape)]
    if found.ndim == 3:
        ways.append(np.swapaxes(found, 0, 1).reshape(wanted.shape))
    errors = [relative_error(wanted, way, "", 0) for way in ways]
    return min(errors, default=math.inf)
