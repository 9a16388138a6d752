"""Subclasses of stock layers with a forward of their own: the same class at other sizes.

A subclass such as "batch norm, then activation" or "pad, then convolve" keeps its forward when
its parameters, buffers and size attributes are those of another width. Whether its forward uses
them in the stock way is for the trace to say (`cerewrite.frontend.tracing.modules`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cerewrite.errors import RewriteError
from cerewrite.nn.narrow_conv import STOCK as NARROW

M = TypeVar("M", bound=nn.Module)

_SIZES = ("num_features", "num_channels", "in_channels", "out_channels", "embedding_dim")
"""Attributes in which stock modules keep their channel counts."""

_METHODS = ("forward", "_conv_forward", "__call__")


def expect(module: nn.Module, kinds: tuple[type[M], ...], *, forwards: bool = False) -> M:
    """The module, if it behaves as one of ``kinds``; a subclass may not change its forward.

    Args:
        module: any module.
        kinds: stock types.
        forwards: whether a subclass may have a forward of its own
            (see `bound_to_width`).

    Raises:
        RewriteError: if it is of another type, computes differently, or holds its weight
            in another way (parametrised, weight-normed, quantised).
    """
    why = unlike(module, kinds)
    if why is not None and forwards and has_own_forward(module, kinds):
        why = bound_to_width(module, kinds)
    if why is not None:
        raise RewriteError(
            f"a {type(module).__module__}.{type(module).__qualname__} cannot be split: it {why}",
            advice="exclude the layer, or replace it by the plain torch.nn module",
        )
    return module  # type: ignore[return-value]  # it is one of the kinds


def unlike(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> str | None:
    """Why a module does not behave as one of ``kinds``; None if it does.

    A subclass that leaves the stock forward alone behaves as its parent.

    Example:
        >>> class Named(nn.Linear):
        ...     pass
        >>> unlike(Named(2, 2), [nn.Linear]), unlike(nn.ReLU(), [nn.Linear])
        (None, 'is none of Linear')
    """
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None:
        return f"is none of {', '.join(kind.__name__ for kind in kinds)}"
    own = NARROW.get(type(module), type(module))
    changed = [
        method
        for method in _METHODS
        if getattr(own, method, None) is not getattr(kind, method, None)
    ]
    if changed or "forward" in vars(module):
        return f"overrides {changed[0] if changed else 'forward'}"
    if set(module._parameters) - {"weight", "bias"} or not hasattr(module, "weight"):
        return f"holds the parameters {sorted(module._parameters)}"
    if "weight" not in module._parameters:
        return "computes its weight from something else"
    if module._modules:
        return f"holds the module '{next(iter(module._modules))}'"
    return None


def has_own_forward(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether a module is a subclass of one of ``kinds`` that changes its forward.

    Example:
        >>> class Loud(nn.BatchNorm1d):
        ...     def forward(self, input):
        ...         return 2 * super().forward(input)
        >>> has_own_forward(Loud(2), [nn.BatchNorm1d]), has_own_forward(nn.ReLU(), [nn.BatchNorm1d])
        (True, False)
    """
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    return kind is not None and type(module).forward is not kind.forward


def bound_to_width(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> str | None:
    """Why a subclass with its own forward cannot be had at another width; None if it can.

    Everything that knows the width must be where the stock module has it.

    Args:
        module: an instance of a subclass of one of ``kinds``.
        kinds: stock types: convolutions and norms.
    """
    kind: Any = next(kind for kind in kinds if isinstance(module, kind))
    if type(module).__call__ is not kind.__call__ or "forward" in vars(module):
        return "overrides forward outside its class"
    for child in module.modules():
        if child is not module and (child._parameters or child._buffers):
            return f"overrides forward and holds a {type(child).__name__} with its own values"
    own = filter_settings(module, getattr(module, "out_channels", 0))
    if set(module._parameters) - {"weight", "bias", *own} or "weight" not in module._parameters:
        return f"overrides forward and holds the parameters {sorted(module._parameters)}"
    attributes, buffers = _stock(kind)
    held = {name for name, b in module._buffers.items() if b is not None and b.numel() > 1}
    if held - buffers:
        return f"overrides forward and holds the buffers {sorted(held - buffers)}"
    sizes = {vars(module)[name] for name in _SIZES if name in vars(module)}
    for name in sorted(vars(module).keys() - attributes):
        if _knows(vars(module)[name], sizes):
            return f"overrides forward and keeps what may be its width in '{name}'"
    return None


def filter_settings(module: nn.Module, n_out: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a convolution's own, one value per filter, with their shapes at another width.

    Args:
        module: any module; those that are no convolutions have none.
        n_out: output channels.
    """
    if not isinstance(module, _ConvNd):
        return {}
    return {
        name: (n_out, *parameter.shape[1:])
        for name, parameter in module._parameters.items()
        if name not in ("weight", "bias")
        and parameter is not None
        and parameter.dim()
        and parameter.numel() == parameter.shape[0] == module.out_channels
    }


def stock_names(kind: type[nn.Module]) -> frozenset[str]:
    """Names of the attributes that the convolution behind a subclass has itself."""
    return _stock(next(base for base in kind.__mro__ if base.__module__.startswith("torch.")))[0]


@functools.cache
def _stock(kind: type[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Names of a stock module's attributes, and of its buffers."""
    two = kind in (nn.GroupNorm, nn.Embedding)
    sizes = (1, 1, 1) if issubclass(kind, _ConvNd) else (1, 1) if two else (1,)
    module = kind(*sizes, device="meta")  # draws nothing
    return frozenset(vars(module)), frozenset(module._buffers)


def _knows(value: Any, sizes: Iterable[int]) -> bool:
    """Whether an attribute may hold a width, or tensors and modules out of reach."""
    if isinstance(value, Tensor | nn.Module):
        return True
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_knows(item, sizes) for item in value)
    return isinstance(value, int) and not isinstance(value, bool) and value in sizes


def resized_copy(module: M, shapes: Mapping[str, tuple[int, ...]], **sizes: float) -> M:
    """A copy of a module whose tensors have other shapes, on meta, and its attributes other sizes.

    Args:
        module: the original; its tensors are not copied.
        shapes: the shape of every parameter and buffer that has one per channel.
        sizes: attributes to set.
    """
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    new = copy.deepcopy(module, {id(tensor): tensor for tensor in own})
    for name, parameter in new._parameters.items():
        if parameter is not None:
            empty = parameter.detach().new_empty(shapes[name], device="meta")
            new._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
    for name, buffer in new._buffers.items():
        if buffer is not None:
            shape = shapes.get(name, buffer.shape)
            new._buffers[name] = buffer.new_empty(shape, device="meta")
    vars(new).update(sizes)
    return new


def per_channel_copy(norm: M, size: int, **sizes: int) -> M:
    """A norm's copy whose vectors, one value per channel, have ``size`` elements."""
    tensors = chain(norm.named_parameters(recurse=False), norm.named_buffers(recurse=False))
    return resized_copy(norm, {name: (size,) for name, tensor in tensors if tensor.dim()}, **sizes)
