"""First rung: `torch.export` without decomposition, its graph turned into operators."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator

from cerewrite.frontend.tracing.fusion import fuse
from cerewrite.ir import Op, Ref
from cerewrite.kernel.constants import Literal

_CALL = re.compile(r"@(\d+)$")
_UNTAGGED = frozenset({"hardswish", "log_sigmoid"})
"""Pointwise operators of ATen that do not carry the tag."""


def export_ops(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Op]:
    """Operators of a model as `torch.export.export(strict=False)` sees them.

    Raises:
        Exception: whatever the exporter raises on a model that it cannot follow.
    """
    program = torch.export.export(model, args, kwargs, strict=False)
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters}
    constants = {
        **signature.inputs_to_buffers,
        **getattr(signature, "inputs_to_lifted_tensor_constants", {}),
    }
    nodes = list(program.graph_module.graph.nodes)
    hidden = next((n.target for n in nodes if isinstance(n.target, HigherOrderOperator)), None)
    if hidden is not None:
        raise TypeError(f"the exporter hides operators in '{hidden}'")
    combine = {node.name: _combine(node) for node in nodes if _joins(node)}
    ops = _placed([_convert(node, names, constants) for node in nodes], model)
    ops = [_with_value(op, program.constants) for op in ops]
    return fuse(ops, combine)


def _placed(ops: list[Op], model: nn.Module) -> list[Op]:
    """Operators whose module the stack calls by no name of its own: ``layers[:2]`` makes one."""
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    owners = {op.name: op.module.rpartition(".")[0] for op in ops if op.target == "parameter"}
    found = []
    for op in ops:
        if op.module not in known and op.target not in ("parameter", "constant"):
            name = next((owners[read] for read in op.inputs if read in owners), op.module)
            while name not in known:
                name = name.rpartition(".")[0]
            op = replace(op, module=name)
        found.append(op)
    return found


def _convert(node: fx.Node, parameters: dict[str, str], constants: dict[str, str]) -> Op:
    if node.op == "placeholder":
        if node.name in parameters:
            return _end(node, "parameter", parameters[node.name])
        if node.name in constants:
            return _end(node, "constant", constants[node.name])
        return _end(node, "input", "")
    if node.op == "get_attr":
        return _end(node, "constant", str(node.target))
    if node.op == "output":
        return Op(node.name, "output", operands(node), ())
    module, call = _module(node)
    return Op(
        name=node.name,
        target=canonical(node.target),
        inputs=operands(node),
        shape=shape_of(node),
        module=module,
        call=call,
        args=references(node.args),
        kwargs=references(node.kwargs),
        function=_pointwise(node),
        dtype=dtype_of(node),
    )


def _with_value(op: Op, values: Mapping[str, Any]) -> Op:
    """A constant that the exporter lifted out of the forward, with its tensor."""
    value = values.get(op.module) if op.target == "constant" else None
    return replace(op, args=(Literal(value),)) if isinstance(value, Tensor) else op


def _end(node: fx.Node, target: str, name: str) -> Op:
    return Op(node.name, target, (), shape_of(node), module=name, dtype=dtype_of(node))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor; empty for numbers and for several outputs."""
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()


def dtype_of(node: fx.Node) -> str:
    """Type of a node's tensor, as `Op.dtype`."""
    value = node.meta.get("val")
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else ""


def operands(node: fx.Node) -> tuple[str, ...]:
    """The nodes an operator reads, in argument order (twice where it reads one twice)."""
    found: list[str] = []
    substitute((node.args, node.kwargs), lambda n: found.append(n.name))
    return tuple(found)


def canonical(target: Any) -> str:
    """Operator name without namespace, overload and in-place mark: ``relu``, ``conv2d``."""
    if isinstance(target, torch._ops.OpOverload):
        name = str(target._schema.name).rsplit("::", 1)[-1]
    else:
        name = getattr(target, "__name__", str(target))
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def references(arguments: Any) -> Any:
    """Arguments with every node replaced by a `Ref` to it."""
    return substitute(arguments, lambda node: Ref(node.name))


def substitute(arguments: Any, replace: Callable[[fx.Node], Any]) -> Any:
    """Arguments, however nested, with every node replaced."""
    map_arg: Any = fx.node.map_arg  # its stub allows FX values only
    return map_arg(arguments, replace)


def _module(node: fx.Node) -> tuple[str, int]:
    """Innermost module of a node, and which call of it this is."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", 0
    key, (path, _) = next(reversed(stack.items()))
    mark = _CALL.search(str(key))
    return _CALL.sub("", str(path)), int(mark.group(1)) if mark else 0


def _pointwise(node: fx.Node) -> Callable[[Any], Any] | None:
    """The node as a function of its one tensor, where it acts unit by unit."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not is_pointwise(target):
        return None
    if len(operands(node)) != 1 or not isinstance(node.meta.get("val"), Tensor):
        return None
    return functools.partial(_call, target, node.args, node.kwargs)


def is_pointwise(target: torch._ops.OpOverload) -> bool:
    """Whether an ATen operator acts unit by unit."""
    return torch.Tag.pointwise in target.tags or canonical(target) in _UNTAGGED


def _joins(node: fx.Node) -> bool:
    """Whether a node acts unit by unit on several tensors of its own shape."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not is_pointwise(target):
        return False
    operands = node.all_input_nodes
    return len(node.args) >= 2 and all(shape_of(n) == shape_of(node) for n in operands)


def _combine(node: fx.Node) -> Callable[[Sequence[Tensor]], Tensor]:
    """The node as a function of its tensors in argument order."""

    def call(tensors: Sequence[Tensor]) -> Tensor:
        left = iter(tensors)
        args, kwargs = substitute((node.args, node.kwargs), lambda _: next(left).clone())
        result: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
        return result

    return call


def _call(target: Any, args: Any, kwargs: Any, tensor: Tensor) -> Tensor:
    """Call an operator with its one tensor put in place of the node."""
    filled, named = substitute((args, kwargs), lambda _: tensor)
    result: Tensor = target(*filled, **named)
    return result
