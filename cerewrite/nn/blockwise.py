"""The product of a block-diagonal linear layer, without turning what it reads or writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function


def block_product(rows: Tensor, weight: Tensor, bias: Tensor | None, lead: Sequence[int]) -> Tensor:
    """Every member's own features times its own block.

    In PyTorch eager on the CPU the batched product reads and writes ``[rows, members, n]`` in
    place, so that a run of such layers never turns its activations; backward turns the gradient
    of a layer's output once, which is quicker than to read it along strides. Everywhere else
    (tracing, compilation, `torch.func`, autocast, tensor subclasses) the same product is made of
    stock operators that everyone knows.

    Args:
        rows: ``[rows, members, n_in]``.
        weight: ``[members, n_in, n_out]``.
        bias: ``[members * n_out]``, or None.
        lead: leading axes of the result, ``rows`` elements in all.

    Returns:
        ``[*lead, members * n_out]``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, weight, bias = torch.randn(5, 6), torch.randn(2, 3, 4), torch.randn(8)
        >>> dense = x @ torch.block_diag(*weight) + bias
        >>> found = block_product(x.view(5, 2, 3), weight, bias, (5,))
        >>> torch.allclose(found, dense, atol=1e-6)
        True
    """
    if _eager((rows, weight) if bias is None else (rows, weight, bias)):
        result: Tensor = _InPlace.apply(rows, weight, bias, lead)  # type: ignore[no-untyped-call]
        return result
    turned = rows.transpose(0, 1)
    if bias is None:
        product = torch.bmm(turned, weight)
    else:
        product = torch.baddbmm(_spread(bias, weight), turned, weight)
    return product.transpose(0, 1).reshape(*lead, weight.shape[0] * weight.shape[2])


def _eager(tensors: tuple[Tensor, ...]) -> bool:
    """Whether nobody but autograd looks: plain tensors of one type, no mode, no transform."""
    first = tensors[0]
    return (
        all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and all(t.device.type == "cpu" and t.dtype == first.dtype for t in tensors)
        and first.dtype in (torch.float32, torch.float64)
        and not has_torch_function(tensors)
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
    )


class _InPlace(torch.autograd.Function):
    """Products whose outputs are strided views of ``[*lead, members * n_out]``."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, lead: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        members, _, n_out = weight.shape
        turned, kept = rows.transpose(0, 1), members * n_out
        # baddbmm is quicker than bmm where its output is strided, even from zeros
        out = rows.new_empty(*lead, kept) if bias is not None else rows.new_zeros(*lead, kept)
        place = out.view(-1, members, n_out).transpose(0, 1)
        start = place if bias is None else _spread(bias, weight)
        torch.baddbmm(start, turned, weight, out=place)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiable itself: made of `block_product` and stock operators."""
        rows, weight = ctx.saved_tensors
        to_rows, to_weight, to_bias, _ = ctx.needs_input_grad
        given = gradients[0].reshape(len(rows), weight.shape[0], weight.shape[2]).transpose(0, 1)
        # strided rows of a power of two fall on few cache lines: what is read along them is copied
        given = given.contiguous()
        back = None
        if to_rows:
            turned = given.transpose(0, 1)
            back = block_product(turned, weight.transpose(1, 2), None, rows.shape[:1])
            back = back.view(rows.shape)
        return (
            back,
            torch.bmm(given.transpose(1, 2), rows.transpose(0, 1)).transpose(1, 2)
            if to_weight
            else None,
            given.sum(1).flatten() if to_bias else None,
            None,
        )


def _spread(bias: Tensor, weight: Tensor) -> Tensor:
    """``[members * n_out]`` as ``[members, 1, n_out]``."""
    return bias.view(weight.shape[0], 1, weight.shape[2])
