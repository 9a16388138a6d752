"""Norms that a user's own module calls as a function, as stock modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.ir import Op
from cerewrite.ops.resizing import dtype_of


class CalledNorm(nn.Module):
    """A layer norm without bias that is called as a function."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """The norm of ``[..., features]``."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-4)


class CalledRMSNorm(CalledNorm):
    """An RMS norm that is called as a function."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, 1e-4)


_CASTS = frozenset({"to", "_to_copy", "float", "type_as", "_assert_tensor_metadata"})

_LAYER, _RMS = (functional.layer_norm, torch.layer_norm), (functional.rms_norm, torch.rms_norm)


def is_called(op: Op, body: Sequence[Op], module: nn.Module | None) -> bool:
    """Whether all that a module of no stock type runs is one norm, and casts.

    Args:
        op: the norm.
        body: everything that the module runs.
        module: the module; its parameters can only be a weight, or a weight and a bias.
    """
    if module is None or isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return False
    own = module._parameters.keys() - {"weight", "bias"}
    names = [name for name, value in module._parameters.items() if value is not None]
    plain = not own and names in ([], ["weight"], ["weight", "bias"])
    casts = all(other is op or other.target in _CASTS for other in body)
    return plain and casts and len(op.inputs) == 1 + len(names)


class _Listener(TorchFunctionMode):
    """Hears the norms that are called, their kinds, sizes and eps, and takes their place."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[type[Any], tuple[int, ...], float | None]] = []

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func not in _LAYER + _RMS:
            return func(*args, **named)
        kind, at, usual = (nn.LayerNorm, 4, 1e-5) if func in _LAYER else (nn.RMSNorm, 3, None)
        shape = args[1] if len(args) > 1 else named["normalized_shape"]
        eps = args[at] if len(args) > at else named.get("eps", usual)
        self.heard.append((kind, tuple(shape), eps))
        return args[0] if args else named["input"]


def as_stock(module: nn.Module) -> nn.Module:
    """The stock norm with a module's eps, weight and bias.

    Args:
        module: one whose forward is a layer norm or RMS norm over the last axis; its parameters,
            if any, are ``weight`` and ``bias``.

    Raises:
        RewriteError: if its forward calls no norm over one axis, or several.

    Example:
        >>> as_stock(CalledNorm(4))
        LayerNorm((4,), eps=0.0001, elementwise_affine=True, bias=False)
        >>> as_stock(CalledRMSNorm(4))
        RMSNorm((4,), eps=0.0001, elementwise_affine=True)
    """
    own = dict(module.named_parameters())
    like = own.get("weight", torch.empty(1))
    with torch.no_grad(), _Listener() as listener:
        module(torch.zeros_like(like)[None])
    if len(listener.heard) != 1 or len(listener.heard[0][1]) != 1:
        raise RewriteError(
            f"the forward of a {type(module).__name__} is no norm over one axis",
            advice="use nn.LayerNorm or nn.RMSNorm, or exclude the layers around it",
        )
    (kind, shape, eps), options = listener.heard[0], {"device": "meta", "dtype": dtype_of(module)}
    if kind is nn.LayerNorm:
        options["bias"] = "bias" in own
    stock: nn.Module = kind(shape, eps, bool(own), **options)
    stock._parameters.update(own)
    return stock.train(module.training)
