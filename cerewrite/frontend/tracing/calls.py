"""How torch's functions are called: their names, what they write, what Python hides behind them."""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.frontend.tracing.export_rung import canonical, is_pointwise

LOOKS = frozenset(
    {
        "bool", "item", "tolist", "int", "float", "index", "complex", "contains", "numpy",
        "array", "equal", "allclose", "is_nonzero",
    }
)  # fmt: skip
"""Operators that hand values of a tensor to Python, without their underscores."""

_DISPATCH = "torch._jit_internal"
_ENTERED = ("torch.nn.functional", "torch.functional", "torch._tensor", _DISPATCH)
_OVERRIDES = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_REFLECTED = {"radd": "add", "rmul": "mul", "rmatmul": "matmul", "truediv": "div",
              "itruediv": "div", "getitem": "index", "T": "numpy_T", "data": "alias"}  # fmt: skip


def is_python(func: Any) -> bool:
    """Whether a function of torch is written in Python, over functions that can be seen."""
    return isinstance(func, types.FunctionType) and func.__module__ in _ENTERED


@functools.cache
def entered(func: Any) -> Any:
    """A Python function of torch that does not hand itself over to the mode again."""
    own = {name: _never for name in _OVERRIDES if name in func.__globals__}
    cells = func.__closure__
    if func.__module__ == _DISPATCH:  # it calls one of two functions that it holds
        cells = tuple(types.CellType(_inner(cell.cell_contents)) for cell in cells)
    entered = types.FunctionType(
        func.__code__, {**func.__globals__, **own}, func.__name__, func.__defaults__, cells
    )
    entered.__kwdefaults__ = func.__kwdefaults__
    return entered


def _inner(value: Any) -> Any:
    return entered(value) if is_python(value) else value


def _never(*args: Any) -> bool:
    return False


def owned(model: nn.Module) -> dict[int, tuple[str, str]]:
    """Kind and name of every parameter and buffer, by identity; the last name of a tied one."""
    found = {id(b): ("constant", n) for n, b in model.named_buffers(remove_duplicate=False)}
    parameters = model.named_parameters(remove_duplicate=False)
    return found | {id(p): ("parameter", name) for name, p in parameters}


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested arguments, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def listed(result: Any) -> Sequence[Any]:
    """One result or several, as several."""
    return result if isinstance(result, tuple | list) else (result,)


def target_of(func: Any) -> tuple[str, bool]:
    """Operator name, and whether it writes into its first tensor."""
    if isinstance(func, torch._ops.OpOverload):
        return canonical(func), func._schema.is_mutable
    name = str(getattr(func, "__name__", func))
    if name in ("__get__", "__set__"):
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
        return _REFLECTED.get(name, name), False
    if name.startswith("__") and name.endswith("__"):
        bare = name.strip("_")
        plain = bare[1:] if bare in ("iadd", "isub", "imul", "itruediv") else bare
        return _REFLECTED.get(plain, plain), bare != plain or bare == "setitem"
    if name.endswith("_"):
        return name.rstrip("_"), True
    return name, False


def type_name(value: Any) -> str:
    """Name of a tensor's type: ``float32``; "" for other values.

    Example:
        >>> type_name(torch.ones(2)), type_name(2)
        ('float32', '')
    """
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else ""


def memory(tensor: Tensor) -> int:
    """A number for the memory that a tensor and its views share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return id(tensor)


def acts_unit_by_unit(target: str) -> bool:
    """Whether the ATen namesake of an operator is pointwise."""
    packet = getattr(torch.ops.aten, target, None)
    if packet is None:
        return False
    return any(is_pointwise(getattr(packet, overload)) for overload in packet.overloads())


def joins(target: str, read: Sequence[Tensor], result: Tensor) -> bool:
    """Whether an operator acts unit by unit on several tensors of its own shape."""
    return (
        len(read) >= 2
        and acts_unit_by_unit(target)
        and all(tensor.shape == result.shape for tensor in read)
    )


def call_again(func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> Tensor:
    """Call an operator with other tensors in the place of those that it was recorded with."""
    left = iter(tensors)
    filled, named = pytree.tree_map_only(Tensor, lambda _: next(left).clone(), (args, kwargs))
    result: Tensor = func(*filled, **named)
    return result
