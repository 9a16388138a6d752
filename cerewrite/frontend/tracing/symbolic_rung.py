"""Second rung: `torch.fx.symbolic_trace`, with shapes from fake tensors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from cerewrite.frontend.tracing.export_rung import (
    canonical,
    dtype_of,
    is_pointwise,
    operands,
    references,
    shape_of,
    substitute,
)
from cerewrite.ir import Op
from cerewrite.ops import OPRULES


def symbolic_ops(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Op]:
    """Operators of a model as symbolic tracing sees them.

    Raises:
        Exception: whatever symbolic tracing raises on a model that it cannot follow.
    """
    graph = fx.symbolic_trace(model)
    for node in graph.graph.nodes:
        if dataclasses.is_dataclass(node.target):
            raise TypeError(f"the output is a {node.target}, which a graph takes for an operator")
    placeholders = [n.target for n in graph.graph.nodes if n.op == "placeholder"]
    missing = placeholders[len(args) :]
    positional = (*args, *(kwargs[name] for name in missing if name in kwargs))
    FakeTensorProp(graph, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*positional)
    seen: dict[str, int] = {}
    return [_convert(node, model, seen) for node in graph.graph.nodes]


def _convert(node: fx.Node, model: nn.Module, seen: dict[str, int]) -> Op:
    if node.op == "placeholder":
        return Op(node.name, "input", (), shape_of(node), dtype=dtype_of(node))
    if node.op == "output":
        return Op(node.name, "output", operands(node), ())
    if node.op == "get_attr":
        name = str(node.target)
        value: Any = functools.reduce(getattr, name.split("."), model)
        kind = "parameter" if isinstance(value, nn.Parameter) else "constant"
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        return Op(node.name, kind, (), shape, module=name, dtype=dtype_of(node))
    if node.op == "call_module":
        return _module_call(node, model, seen)
    name = canonical(node.target)
    return Op(
        name=node.name,
        target=name,
        inputs=operands(node),
        shape=shape_of(node),
        module=_owner(node),
        args=references(node.args),
        kwargs=references(node.kwargs),
        function=_pointwise(node, name),
        dtype=dtype_of(node),
    )


def _module_call(node: fx.Node, model: nn.Module, seen: dict[str, int]) -> Op:
    name = str(node.target)
    module = model.get_submodule(name)
    call = seen.get(name, 0)
    seen[name] = call + 1
    target = _target(module)
    args: tuple[Any, ...] = references(node.args)
    if isinstance(module, nn.Flatten):
        target, args = "flatten", (*args, module.start_dim, module.end_dim)
    elif isinstance(module, nn.LayerNorm):
        args = (*args, tuple(module.normalized_shape))
    return Op(
        name=node.name,
        target=target,
        inputs=operands(node),
        shape=shape_of(node),
        module=name,
        call=call,
        args=args,
        function=module if _is_activation(module) and len(operands(node)) == 1 else None,
        dtype=dtype_of(node),
    )


def _target(module: nn.Module) -> str:
    """The operator that a module is, as the rules name it; else the name of its type."""
    named = dict(leaf for rule in OPRULES.values() for leaf in rule.leaves)
    return named.get(type(module), type(module).__name__)


def _is_activation(module: nn.Module) -> bool:
    mixing = (nn.PReLU, nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.GLU)
    known = type(module).__module__ == "torch.nn.modules.activation"
    return known and not isinstance(module, (*mixing, nn.MultiheadAttention, nn.RReLU))


def _owner(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _pointwise(node: fx.Node, name: str) -> Callable[[Any], Any] | None:
    """The node as a function of its one tensor, where its ATen namesake acts unit by unit."""
    packet = getattr(torch.ops.aten, name.removeprefix("i") if name in _INPLACE else name, None)
    if packet is None or len(operands(node)) != 1 or not shape_of(node):
        return None
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    if not any(is_pointwise(overload) for overload in overloads):
        return None
    return functools.partial(_call, node.op, node.target, node.args, node.kwargs)


_INPLACE = frozenset({"iadd", "isub", "imul"})


def _call(kind: str, target: Any, args: Any, kwargs: Any, tensor: Tensor) -> Tensor:
    filled, named = substitute((args, kwargs), lambda _: tensor)
    result: Tensor = (
        getattr(filled[0], target)(*filled[1:], **named)
        if kind == "call_method"
        else target(*filled, **named)
    )
    return result
