"""Batch norms folded into the layers before them in float64, and rounded once.

torch.onnx folds them too, in the file's own type: in 16 bits the square root, the quotient, the
scaled weight and the shift are each rounded, alike for a whole channel, on top of weights that
were rounded before. ResNet-50 then misses by twice as much as 16-bit weights have to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir import Node, Value
from torch import Tensor, nn

from cerewrite.exporter.forms import attribute

FILTERS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
"""Operators that take a norm in, with the axis of their weight along which channels lie."""


def exact_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by the names that torch.onnx gives them."""
    return {
        name: tensor.detach()
        for tensors in (model.named_parameters, model.named_buffers)
        for name, tensor in tensors(remove_duplicate=False)
    }


def fold_norms(graph: onnx_ir.Graph, exact: Mapping[str, Tensor]) -> int:
    """Fold every inference batch norm whose layer nothing else reads, in place.

    Args:
        graph: a graph whose constants are folded.
        exact: tensors that some of its constants were rounded from, by name; they are used in
            their place. One that does not round to the constant is left out.

    Returns:
        How many norms are gone.
    """
    numbers = _Numbers(exact)
    gone = 0
    for norm in [node for node in graph if node.op_type == "BatchNormalization"]:
        layer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if layer is not None and _fits(norm, layer):
            _fold(graph, norm, layer, numbers)
            gone += 1
    return gone


def drop_idle_biases(graph: onnx_ir.Graph) -> int:
    """Take away biases of zeros that are no vectors, in place.

    torch.onnx gives a three-dimensional convolution without a bias one of shape ``[out, 2]``,
    which ONNX does not allow and some runtimes take all the same.

    Returns:
        How many are gone.
    """
    gone = 0
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
            continue
        constant = None if node.inputs[2] is None else node.inputs[2].const_value
        if constant is not None and len(constant.shape) != 1 and not constant.numpy().any():
            node.resize_inputs(2)
            gone += 1
    return gone


def _fits(norm: Node, layer: Node) -> bool:
    """Whether the layer can take the norm in: constants of its own, nobody else reads it."""
    if layer.op_type not in FILTERS or layer.domain or norm.domain or len(norm.outputs) != 1:
        return False
    if layer.op_type == "Gemm" and not _plain_gemm(layer):
        return False
    between, weights = layer.outputs[0], layer.inputs[1]
    if between.is_graph_output() or len(between.uses()) != 1:
        return False
    constants = [*layer.inputs[1:], *norm.inputs[1:]]
    if any(v is not None and (v.const_value is None or v.is_graph_input()) for v in constants):
        return False
    return weights is not None and len(weights.uses()) == 1


def _plain_gemm(layer: Node) -> bool:
    """Whether ``x W^T + b`` is all it computes."""
    numbers = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    found = {key: attribute(layer, key, value) for key, value in numbers.items()}
    return found == {**numbers, "transB": 1}


def _fold(graph: onnx_ir.Graph, norm: Node, layer: Node, numbers: _Numbers) -> None:
    """Put one layer in the place of a layer and the norm behind it."""
    gamma, beta, mean, variance = (numbers(value) for value in norm.inputs[1:5])
    weight, bias = layer.inputs[1], layer.inputs[2] if len(layer.inputs) > 2 else None
    assert weight is not None and weight.const_value is not None
    scale = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    shift = 0.0 if bias is None else numbers(bias)
    kernel = _scaled(numbers(weight), scale, layer)
    kind = weight.const_value.numpy().dtype
    arrays = (kernel.astype(kind), ((shift - mean) * scale + beta).astype(kind))

    constants = [_value(array) for array in arrays]
    merged = onnx_ir.node(layer.op_type, [layer.inputs[0], *constants], dict(layer.attributes))
    merged.name = layer.name
    merged.metadata_props.update({**layer.metadata_props, **norm.metadata_props})
    old, new = norm.outputs[0], merged.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    graph.insert_after(norm, merged)
    for index, end in enumerate(graph.outputs):
        if end is old:
            graph.outputs[index] = new
    old.replace_all_uses_with(new)
    graph.remove([norm, layer], safe=True)

    name = weight.name or f"{layer.name}_weight"
    for constant in (weight, bias):
        if constant is not None and not constant.uses():
            graph.initializers.pop(constant.name or "", None)
    for value, wanted in zip(
        constants, (name, f"{name.removesuffix('.weight')}.bias"), strict=True
    ):
        _register(graph, value, wanted)


def _scaled(kernel: Any, scale: Any, layer: Node) -> Any:
    """A weight with every output channel scaled."""
    if not FILTERS[layer.op_type]:
        return kernel * scale.reshape(-1, *(1 for _ in kernel.shape[1:]))
    # [in, out / groups, *kernel]: every group of inputs has output channels of its own
    spread = scale.reshape(attribute(layer, "group", 1), 1, -1, *(1 for _ in kernel.shape[2:]))
    return (kernel.reshape(spread.shape[0], -1, *kernel.shape[1:]) * spread).reshape(kernel.shape)


class _Numbers:
    """Constants in float64, from what they were rounded from where that is known."""

    def __init__(self, exact: Mapping[str, Tensor]) -> None:
        self._exact = exact

    def __call__(self, value: Value | None) -> Any:
        assert value is not None and value.const_value is not None
        stored = value.const_value.numpy()
        source = self._exact.get(value.name or "")
        if source is not None and source.is_floating_point():
            precise = source.to("cpu", torch.float64).numpy()
            with np.errstate(over="ignore"):
                rounded = precise.astype(stored.dtype)
            if rounded.shape == stored.shape and np.array_equal(rounded, stored):
                return precise
        return stored.astype(np.float64)


def _value(array: Any) -> Value:
    tensor = onnx_ir.tensor(array)
    kind, shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(array.shape)
    return Value(name=None, shape=shape, type=kind, const_value=tensor)


def _register(graph: onnx_ir.Graph, value: Value, name: str) -> None:
    """Make a value an initializer, under another name if that one is taken."""
    while name in graph.initializers:
        name += "_folded"
    value.name = name
    graph.register_initializer(value)
