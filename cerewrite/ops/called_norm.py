"""Layer norms that a user's own module calls as a function, as stock modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from cerewrite.errors import RewriteError
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


class _Listener(TorchFunctionMode):
    """Hears the layer norms that are called, their sizes and eps, and takes their place."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[tuple[int, ...], float]] = []

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func in (functional.layer_norm, torch.layer_norm):
            shape = args[1] if len(args) > 1 else named["normalized_shape"]
            eps = args[4] if len(args) > 4 else named.get("eps", 1e-5)
            self.heard.append((tuple(shape), eps))
            return args[0] if args else named["input"]
        return func(*args, **named)


def as_stock(module: nn.Module) -> nn.LayerNorm:
    """The stock norm with a module's eps, weight and bias.

    Args:
        module: one whose forward is a layer norm over the last axis; its parameters, if any, are
            ``weight`` and ``bias``.

    Raises:
        RewriteError: if its forward calls no layer norm over one axis, or several.

    Example:
        >>> as_stock(CalledNorm(4))
        LayerNorm((4,), eps=0.0001, elementwise_affine=True, bias=False)
    """
    own = dict(module.named_parameters())
    like = own.get("weight", torch.empty(1))
    with torch.no_grad(), _Listener() as listener:
        module(torch.zeros_like(like)[None])
    if len(listener.heard) != 1 or len(listener.heard[0][0]) != 1:
        raise RewriteError(
            f"the forward of a {type(module).__name__} is no layer norm over one axis",
            advice="use nn.LayerNorm, or exclude the layers around it",
        )
    (shape, eps), options = listener.heard[0], {"device": "meta", "dtype": dtype_of(module)}
    stock = nn.LayerNorm(shape, eps, bool(own), "bias" in own, **options)
    stock._parameters.update(own)
    return stock.train(module.training)
