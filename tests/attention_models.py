"""Small transformers, written in the ways that libraries write them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention of ``heads`` heads; ``how`` says in what form."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.how, self.num_heads, self.head_dim, self.width = how, heads, width // heads, width
        self.key_heads = heads // 2 if how in ("grouped", "repeated") else heads
        narrow = self.key_heads * self.head_dim
        if how in FUSED:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, n) for n in (width, narrow, narrow))
        self.proj = nn.Linear(width, width)
        if how == "gated heads":
            self.scale = nn.Parameter(torch.rand(heads))
            self.gate = nn.Parameter(torch.randn(heads))

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, ``[batch, heads, positions, head_dim]``."""
        batch, count, width = x.shape
        sizes = (batch, count, self.num_heads, self.head_dim)
        match self.how:
            case "stacked":
                whole = self.qkv(x).reshape(batch, count, 3, self.num_heads, self.head_dim)
                return whole.permute(2, 0, 3, 1, 4).unbind(0)
            case "indexed":
                heads = self.num_heads
                whole = self.qkv(x).reshape(batch, count, 3, heads, width // heads)
                whole = whole.permute(2, 0, 3, 1, 4)
                return whole[0], whole[1], whole[2]
            case "interleaved":
                whole = self.qkv(x).view(batch, count, -1, 3 * self.head_dim)
                return whole.transpose(1, 2).chunk(3, -1)
            case "chunked":
                return tuple(y.view(sizes).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
            case "cut":
                pieces = self.qkv(x).split(self.width, dim=2)
                return tuple(y.view(sizes).transpose(1, 2) for y in pieces)
        named = self.how in ("named heads", "outer heads")
        shape = (batch, count, self.num_heads, -1) if named else (batch, count, -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.how == "repeated":
            again = self.num_heads // self.key_heads
            k, v = (_repeated(y, again) for y in (k, v))
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Attend, put the heads side by side, project."""
        q, k, v = self.parts(x)
        if self.how in ("separate", "indexed"):
            weights = (q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)).softmax(-1)
            y = weights @ v
        elif self.how == "einsum":
            weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
            y = torch.einsum("bhij,bhjd->bhid", weights, v)
        elif self.how == "gated heads":
            scale = self.scale.view(1, self.num_heads, 1, 1).clamp(max=2.0).exp()
            gate = torch.sigmoid(self.gate.view(1, -1, 1, 1))
            weights = (scale * (q @ k.transpose(-2, -1))).softmax(-1)
            y = ((1.0 - gate) * weights + gate * weights.mean(2, keepdim=True)) @ v
        elif self.how == "cosine":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            y = (8 * q @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.how == "grouped")
        if self.how == "outer heads":
            return self.proj(y.permute(0, 2, 3, 1).reshape(*x.shape))
        return self.proj(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


def _repeated(x: Tensor, times: int) -> Tensor:
    batch, heads, count, width = x.shape
    wide = x[:, :, None, :, :].expand(batch, heads, times, count, width)
    return wide.reshape(batch, heads * times, count, width)


FUSED = ("stacked", "indexed", "interleaved", "chunked", "cut")
PER_HEAD = ("gated heads", "named heads", "outer heads")
FORMS = ("separate", "fused", "einsum", "grouped", "repeated", "cosine", *FUSED, *PER_HEAD)


class Norm(nn.Module):
    """An RMS norm that its forward writes by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        """The norm, in single precision at least."""
        y = x.to(torch.float32) if x.dtype == torch.float16 else x
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class Product(nn.Module):
    """A layer that holds its weight ``[in, out]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The product, row by row."""
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.size()[:-1], self.nf)


class Hidden(nn.Module):
    """The other half of a block: plain, gated by a second layer, or by half of one's output."""

    def __init__(self, width: int, gate: str) -> None:
        super().__init__()
        self.gate = gate
        kind = Product if gate == "turned" else nn.Linear
        self.up = kind(width, (2 if gate == "chunked" else 1) * 2 * width)
        if gate == "gated":
            self.side = nn.Linear(width, 2 * width)
        self.down = kind(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Up, gate, down."""
        y = self.up(x)
        if self.gate == "chunked":
            value, gate = y.chunk(2, -1)
            return self.down(value * F.gelu(gate))
        return self.down(F.silu(y) * self.side(x) if self.gate == "gated" else F.gelu(y))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, how: str, gate: str, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attn, self.mlp = Attention(width, heads, how), Hidden(width, gate)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the hidden layer, each added."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Tokens and positions, blocks, a mean over positions, a head.

    Args:
        how: form of attention, one of `FORMS`.
        gate: form of the hidden layer: plain, gated, chunked or turned.
        norm: type of the norms.
        heads: number of heads, of 4 channels each.
        depth: number of blocks.
    """

    def __init__(
        self,
        how: str = "fused",
        gate: str = "plain",
        norm: type[nn.Module] = nn.LayerNorm,
        heads: int = 4,
        depth: int = 1,
    ) -> None:
        super().__init__()
        width = 4 * heads
        self.tokens = nn.Embedding(11, width, padding_idx=0)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 7, width))
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, how, gate, norm) for _ in range(depth)])
        self.norm, self.head = norm(width), nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``[batch, 3]`` of ids ``[batch, 6]``."""
        x = self.tokens(ids)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


IDS = torch.randint(1, 11, (2, 6), generator=torch.Generator().manual_seed(0))
