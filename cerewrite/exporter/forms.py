"""Which operators mean the same on ``[..., m * n]``, ``[..., m, n]`` and ``[m, rows, n]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

SWAP = (1, 0, 2)
"""The permutation that turns ``[m, rows, n]`` into ``[rows, m, n]`` and back."""

POINTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf",
    "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish",
    "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh",
    "ThresholdedRelu", "Where", "Xor"
)  # fmt: skip
NORMS = ("LayerNormalization", "RMSNormalization")
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")

Axis = int | str | None


@dataclass(frozen=True, slots=True)
class Form:
    """How a value that could be ``[m, rows, n]`` is laid out now.

    Attributes:
        shape: as it is now: ``[..., m * n]``, or ``[..., m, n]`` if split.
        members: m, at least 2.
        size: n.
        split: whether members have an axis of their own.
        rows: what the leading axes multiply to.
        source: the value that holds ``shape``, where it must be kept to be known.
    """

    shape: tuple[Axis, ...]
    members: int
    size: int
    split: bool
    rows: Axis
    source: Value | None = None

    @property
    def raw(self) -> tuple[Axis, ...]:
        """The shape with members first."""
        return (self.members, self.rows, self.size)

    @property
    def lead(self) -> tuple[Axis, ...]:
        """The axes before those of the members."""
        return self.shape[: -2 if self.split else -1]

    def sized(self, size: int) -> Form:
        """The same with another n."""
        return replace(self, shape=(*self.shape[:-1], size), size=size)


def axes(value: Value | None) -> tuple[Axis, ...] | None:
    """A value's shape, a symbolic axis by its expression; None if it is not known."""
    if value is None or value.shape is None:
        return None
    return tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)


def swaps(node: Node) -> bool:
    """Whether the node is a transpose by `SWAP`."""
    return node.op_type == "Transpose" and tuple(attribute(node, "perm", ())) == SWAP


def form_of(node: Node, forms: Mapping[Value, Form]) -> Form | None:
    """The form of the node's output, if it means the same with members first; else None.

    A transpose from a fixed first axis starts one; its input is the value with members first.
    """
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return None
    first = node.inputs[0] if node.inputs else None
    if swaps(node) and first not in forms:
        shape = axes(first)
        if shape is None or not isinstance(shape[0], int) or not isinstance(shape[2], int):
            return None
        rows = (shape[1], shape[0], shape[2])
        return Form(rows, shape[0], shape[2], True, shape[1]) if shape[0] > 1 else None
    if not any(value in forms for value in node.inputs if value is not None):
        return None
    if node.op_type == "Reshape":
        return _reshaped(node, forms)
    if node.op_type in POINTWISE:
        return _pointwise(node, forms)
    if first is None or first not in forms:
        return None
    if node.op_type in NORMS:
        return _normed(node, forms[first])
    if node.op_type in REDUCTIONS:
        return _reduced(node, forms[first])
    return None


def root_of(node: Node) -> tuple[Value, Form] | None:
    """The value ``[..., m * n]`` that a transpose and the reshape before it turn, and its form."""
    middle = node.inputs[0] if swaps(node) else None
    maker = None if middle is None else middle.producer()
    if maker is None or maker.op_type != "Reshape":
        return None
    value, rows = maker.inputs[0], axes(middle)
    shape = axes(value)
    if value is None or shape is None or rows is None:
        return None
    m, n = rows[1:]
    if not isinstance(m, int) or not isinstance(n, int) or m < 2 or shape[-1:] != (m * n,):
        return None
    return value, Form(shape, m, n, False, rows[0])


def _reshaped(node: Node, forms: Mapping[Value, Form]) -> Form | None:
    """Rows, members and features kept apart or merged, whatever becomes of the leading axes."""
    value, target = node.inputs
    shape = axes(node.outputs[0])
    if value not in forms or target is None or target in forms or shape is None:
        return None
    assert value is not None
    form = forms[value]
    numbers = _numbers(target)
    source = target if numbers is None or 0 not in numbers else None
    split = len(shape) >= 2 and shape[-2:] == (form.members, form.size)
    if not split and shape[-1:] != (form.members * form.size,):
        return None
    return Form(shape, form.members, form.size, split, form.rows, source)


def _pointwise(node: Node, forms: Mapping[Value, Form]) -> Form | None:
    held = [forms[value] for value in node.inputs if value is not None and value in forms]
    base = max(held, key=lambda form: form.size)
    for value in node.inputs:
        if value is None:
            continue
        if value not in forms:
            if _members_first(value, base) is None:
                return None
            continue
        form = forms[value]
        alike = (form.members, form.split, form.lead) == (base.members, base.split, base.lead)
        if not alike or form.size not in ((1, base.size) if base.split else (base.size,)):
            return None
        if any(axis is None for axis in form.lead) and len(held) > 1:
            return None
    return base


def _normed(node: Node, form: Form) -> Form | None:
    """A norm over the last axis of split values, its scale per feature of a member."""
    axis = attribute(node, "axis", -1)
    fits = all(v is None or len(axes(v) or (0, 0)) <= 1 for v in node.inputs[1:])
    return form if form.split and fits and axis in (-1, len(form.shape) - 1) else None


def _reduced(node: Node, form: Form) -> Form | None:
    over = _numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if not form.split or over is None or over.size != 1 or not attribute(node, "keepdims", 1):
        return None
    return form.sized(1) if int(over.item()) in (-1, len(form.shape) - 1) else None


def raw_constants(graph: onnx_ir.Graph, node: Node, forms: Mapping[Value, Form]) -> None:
    """Give a node its constants, and its axes, as they are with members first."""
    if node.op_type in NORMS:
        node.attributes["axis"] = onnx_ir.AttrInt64("axis", -1)
        return
    form = next(forms[v] for v in node.inputs if v is not None and v in forms)
    for index, value in enumerate(node.inputs):
        if value is None or value in forms:
            continue
        name = f"{value.name}_of_{node.name}"
        if node.op_type in REDUCTIONS:
            node.replace_input_with(index, constant(graph, name, np.array([-1])))
            continue
        size = max(f.size for v in node.inputs if v is not None and (f := forms.get(v)))
        shape = _members_first(value, form.sized(size)) or ()
        if axes(value) not in (shape, ()):
            turned = constant(graph, name, _numbers(value).reshape(shape))
            node.replace_input_with(index, turned)


def _members_first(value: Value, form: Form) -> tuple[int, ...] | None:
    """The shape of a constant operand with members first; None if it cannot be had."""
    shape = axes(value)
    if shape == ():
        return ()
    if value.const_value is None or shape is None or len(shape) > len(form.shape):
        return None
    sizes = list(value.const_value.numpy().shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    if not sizes:
        return ()
    if not form.split:
        wanted = sizes == [form.members * form.size]
        return (form.members, 1, form.size) if wanted else None
    if len(sizes) == 1:
        return (sizes[0],) if sizes[0] == form.size else None
    if len(sizes) == 2 and sizes[0] == form.members and sizes[1] in (1, form.size):
        return (sizes[0], 1, sizes[1])
    return None


def whole(graph: onnx_ir.Graph, name: str, shape: Sequence[Axis]) -> Value:
    """A constant that holds a shape, its open axis as -1."""
    sizes = [axis if isinstance(axis, int) else -1 for axis in shape]
    return constant(graph, name, np.array(sizes, dtype=np.int64))


def constant(graph: onnx_ir.Graph, name: str, array: Any) -> Value:
    """A new initializer."""
    tensor = onnx_ir.tensor(array, name=name)
    kind, shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(array.shape)
    value = Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def _numbers(value: Value | None) -> Any:
    """A constant's numbers; None if it is not one."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def attribute(node: Node, name: str, default: Any) -> Any:
    """A node's attribute, or what it is without one."""
    found = node.attributes.get(name)
    return default if found is None else found.value
