"""`torch.nn.MultiheadAttention` with its projections as layers of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OpenAttention(nn.Module):
    """What `torch.nn.MultiheadAttention` computes, by four linear layers that are called.

    The stock module hands the weights of its projections to one function; nothing can take the
    place of a layer whose weight is read outside of it.

    Args:
        stock: the module whose values it takes; without ``add_bias_kv`` and ``add_zero_attn``.

    Shape:
        as of the stock module.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> stock, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 5, 8)
        >>> y, weights = OpenAttention(stock)(x, x, x)
        >>> torch.allclose(y, stock(x, x, x)[0], atol=1e-6), tuple(weights.shape)
        (True, (3, 5, 5))
    """

    in_proj_bias = None  # stock encoder layers take their fused path only where there is one
    _qkv_same_embed_dim = False

    def __init__(self, stock: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = stock.num_heads, stock.head_dim
        self.dropout, self.batch_first = stock.dropout, stock.batch_first
        whole = stock.in_proj_weight
        named = (stock.q_proj_weight, stock.k_proj_weight, stock.v_proj_weight)
        weights = named if whole is None else whole.chunk(3)
        biases = [None] * 3 if stock.in_proj_bias is None else stock.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_layer, weights, biases)
        self.out_proj = _layer(stock.out_proj.weight, stock.out_proj.bias)
        self.train(stock.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; takes and returns what the stock module does."""
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            torch.unflatten(layer(x), -1, (-1, self.head_dim)).transpose(1, 2)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = self._mask(q, key_padding_mask, attn_mask)
        if need_weights:
            logits = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = (logits if mask is None else logits + mask).softmax(-1)
            y = F.dropout(weights, self.dropout, self.training) @ v
        else:
            drop = self.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, mask, drop)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        y = y.squeeze(0) if single else y if self.batch_first else y.transpose(0, 1)
        if not need_weights:
            return y, None
        weights = weights.mean(1) if average_attn_weights else weights
        return y, weights.squeeze(0) if single else weights

    def _mask(self, q: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as one that is added, ``[batch or 1, heads or 1, positions, positions]``."""
        found = None
        if mask is not None:
            found = _added(mask, q)
            found = (
                found[None, None]
                if found.dim() == 2
                else torch.unflatten(found, 0, (-1, self.num_heads))
            )
        if padding is not None:
            padded = _added(padding, q).reshape(-1, 1, 1, padding.shape[-1])
            found = padded if found is None else found + padded
        return found


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    new = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    new.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return new
