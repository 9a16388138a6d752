"""Running a model in double precision, whatever types its forward names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from cerewrite.runtime.alone import alone


@contextmanager
def double_precision(*, late: bool = False) -> Iterator[None]:
    """Tensors that a model creates by itself, or casts, are float64 here too.

    Args:
        late: whether tensors of other floating-point types are widened when they are read, each
            for the time of one operator: so run the parameters that `widened` left as they are.
    """
    with alone():
        torch.set_default_dtype(torch.float64)
        with _Widening() if late else _Doubling():
            yield


LARGE = 2**20
"""Elements of a parameter from which `widened` leaves its module in its own type."""


def widened(model: nn.Module) -> nn.Module:
    """A model in float64, in place, but for modules with large parameters of their own.

    Example:
        >>> net = widened(nn.Sequential(nn.Linear(2048, 1024), nn.Linear(1024, 2)))
        >>> [layer.weight.dtype for layer in net]
        [torch.float32, torch.float64]
    """
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
        if any(parameter.numel() >= LARGE for parameter in own):
            continue
        for parameter in own:
            parameter.data = parameter.data.double()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                module._buffers[name] = buffer.double()
    return model


class _Doubling(TorchFunctionMode):
    """Turns every cast to a floating-point type into one to float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.half, Tensor.bfloat16, Tensor.float):
            func = Tensor.double
        named = {name: _widest(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widest, args), **named)


class _Widening(_Doubling):
    """Reads every floating-point tensor as float64; what is written in place keeps its type."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__" or name in _UNREAD:
            return func(*args, **(kwargs or {}))
        if name.endswith("_") and not name.endswith("__"):
            args = (*args[:1], *_read(args[1:]))
        else:
            args = _read(args)
        return super().__torch_function__(func, types, args, _read(kwargs or {}))


_UNREAD = frozenset(
    {"size", "dim", "numel", "stride", "requires_grad_", "detach", "view", "__set__"}
)
"""Functions that read no values."""


def _read(tree: Any) -> Any:
    return pytree.tree_map_only(Tensor, _wide, tree)


def _wide(tensor: Tensor) -> Tensor:
    narrow = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.double() if narrow else tensor


def _widest(value: Any) -> Any:
    """A floating-point type as float64, all else as it is; no call nests one in a list."""
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return value
