"""The product of a block-diagonal linear layer, without turning what it reads or writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import has_torch_function

PLAIN = (Tensor, Parameter)
WIDE = (torch.float32, torch.float64)

ONEDNN: bool = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and "AVX" in torch.backends.cpu.get_cpu_capability()
)
"""Whether PyTorch has oneDNN's convolutions for this processor."""
IMAGES = 16
"""Fewest images of which PyTorch gives a convolution of size 1 to oneDNN on one thread."""
PIXELS = (16, 8, 4)
"""Rows per image, quickest first."""
NARROWEST = 32
"""Features per member from which such convolutions are the quicker product."""


def block_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every member's own features times its own block.

    In PyTorch eager on the CPU the product reads and writes ``[rows, members, n]`` in place, so
    that a run of such layers never turns its activations: as a convolution of size 1 in groups,
    channels last, where oneDNN has it for the type and the sizes, and else as a batched product.
    Backward does the same, and turns the layer's input once for the gradient of the weight.
    Everywhere else (tracing, compilation, `torch.func`, autocast, tensor subclasses) the same
    product is made of stock operators that everyone knows.

    Args:
        x: ``[..., members * n_in]``.
        weight: ``[members, n_in, n_out]``.
        bias: ``[members * n_out]``, or None.

    Returns:
        ``[..., members * n_out]``.

    Raises:
        RuntimeError: if the input has another width.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, weight, bias = torch.randn(5, 6), torch.randn(2, 3, 4), torch.randn(8)
        >>> dense = x @ torch.block_diag(*weight) + bias
        >>> torch.allclose(block_linear(x, weight, bias), dense, atol=1e-6)
        True
    """
    members, n_in, n_out = weight.shape
    if x.shape[-1:] == (members * n_in,) and eager(x, weight, bias):
        result: Tensor = _InPlace.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    rows = torch.unflatten(x, -1, (members, n_in)).reshape(-1, members, n_in).transpose(0, 1)
    if bias is None:
        product = torch.bmm(rows, weight)
    else:
        product = torch.baddbmm(bias.view(members, 1, n_out), rows, weight)
    return product.transpose(0, 1).reshape(*x.shape[:-1], members * n_out)


def eager(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nobody but autograd looks: plain tensors of one type, no mode, no transform."""
    if type(x) not in PLAIN or type(weight) not in PLAIN or weight.dtype not in WIDE:
        return False
    other = weight if bias is None else bias
    return (
        type(other) in PLAIN
        and x.dtype == weight.dtype == other.dtype
        and x.is_cpu
        and weight.is_cpu
        and not has_torch_function((x,))
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
    )


class _InPlace(torch.autograd.Function):
    """Products that write ``[..., members * n_out]`` where it lies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiable itself where it is asked to be."""
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        (given,) = gradients
        back = spread = None
        if to_x:
            product = block_linear if torch.is_grad_enabled() else _product
            back = product(given, weight.transpose(1, 2), None)
        if to_weight:
            # strided rows of a power of two fall on few cache lines: to sum over them, copy them
            read = _turned(x, weight.shape[:2]).contiguous()
            spread = torch.bmm(read.transpose(1, 2), _turned(given, weight.shape[::2]))
        return back, spread, given.reshape(-1, given.shape[-1]).sum(0) if to_bias else None


def _turned(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``[..., members * n]`` as ``[members, rows, n]``; a view where the rows lie evenly."""
    return x.reshape(-1, *sizes).transpose(0, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By the quicker kernel for the type and the sizes; no view, to be changed in place at will."""
    members, n_in, n_out = weight.shape
    shape = (*x.shape[:-1], members * n_out)
    pixels = _pixels(x, n_in, n_out)
    if pixels:
        images = x.reshape(-1, pixels, 1, members * n_in).permute(0, 3, 1, 2)
        return _convolved(images, weight, bias).permute(0, 2, 3, 1).reshape(shape).data
    out = x.new_empty(shape)
    _fill(out, _turned(x, (members, n_in)), weight, bias)
    return out


def _pixels(x: Tensor, n_in: int, n_out: int) -> int:
    """Rows per image if convolutions are the quicker product, else 0."""
    if not ONEDNN or x.dtype != torch.float32 or min(n_in, n_out) < NARROWEST:
        return 0
    rows = x.numel() // x.shape[-1]
    return next((p for p in PIXELS if rows % p == 0 and rows >= IMAGES * p), 0)


def _convolved(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product as a convolution of size 1 in groups, ``[images, channels, pixels, 1]``.

    Its kernel is ``[members * n_out, n_in]``, that of a transposed one ``[members * n_in, n_out]``:
    the one that lies so in memory is taken, and no weight is copied.
    """
    members, n_in, n_out = weight.shape
    if weight.is_contiguous():
        kernel = weight.view(members * n_in, n_out, 1, 1)
        return torch.conv_transpose2d(images, kernel, bias, groups=members)
    kernel = weight.transpose(1, 2).reshape(members * n_out, n_in, 1, 1)
    return torch.conv2d(images, kernel, bias, groups=members)


def _fill(out: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """The product, written in place; baddbmm is quicker than bmm there, even from zeros."""
    members, _, n_out = weight.shape
    place = out.view(-1, members, n_out).transpose(0, 1)
    if bias is None:
        out.zero_()
        torch.baddbmm(place, rows, weight, out=place)
    else:
        torch.baddbmm(bias.view(members, 1, n_out), rows, weight, out=place)
