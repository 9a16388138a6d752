"""The product of a block-diagonal linear layer, without turning what it reads or writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import has_torch_function

PLAIN = (Tensor, Parameter)
WIDE = (torch.float32, torch.float64)


def block_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every member's own features times its own block.

    In PyTorch eager on the CPU the batched product reads and writes ``[rows, members, n]`` in
    place, so that a run of such layers never turns its activations; backward turns the gradient
    of a layer's output once, which is quicker than to read it along strides. Everywhere else
    (tracing, compilation, `torch.func`, autocast, tensor subclasses) the same product is made of
    stock operators that everyone knows.

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
    if eager(x, weight, bias):
        result: Tensor = _InPlace.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    members, n_in, n_out = weight.shape
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
        and x.shape[-1:] == (weight.shape[0] * weight.shape[1],)
        and not has_torch_function((x,))
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
    )


class _InPlace(torch.autograd.Function):
    """Products whose outputs are strided views of ``[..., members * n_out]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        members, _, n_out = weight.shape
        out = x.new_empty((*x.shape[:-1], members * n_out))
        _fill(out, _turned(x, weight.shape[:2]), weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiable itself where it is asked to be."""
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        # strided rows of a power of two fall on few cache lines: what is read along them is copied
        given = _turned(gradients[0], weight.shape[::2]).contiguous()
        back = None
        if to_x and torch.is_grad_enabled():
            back = block_linear(gradients[0], weight.transpose(1, 2), None)
        elif to_x:
            back = x.new_empty(x.shape)
            _fill(back, given, weight.transpose(1, 2), None)
        spread = None
        if to_weight:
            read = _turned(x, weight.shape[:2])
            spread = torch.bmm(given.transpose(1, 2), read).transpose(1, 2)
        return back, spread, given.sum(1).flatten() if to_bias else None


def _turned(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``[..., members * n]`` as ``[members, rows, n]``; a view where the rows lie evenly."""
    return x.reshape(-1, *sizes).transpose(0, 1)


def _fill(out: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """The product, written in place; baddbmm is quicker than bmm there, even from zeros."""
    members, _, n_out = weight.shape
    place = out.view(-1, members, n_out).transpose(0, 1)
    if bias is None:
        out.zero_()
        torch.baddbmm(place, rows, weight, out=place)
    else:
        torch.baddbmm(bias.view(members, 1, n_out), rows, weight, out=place)
