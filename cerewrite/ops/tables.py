"""Tables of entries, one row each: tokens, positions, types."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.ops.base import register
from cerewrite.ops.cases import Case
from cerewrite.ops.modules import ResizableModule
from cerewrite.ops.own_forwards import expect, resized_copy
from cerewrite.ops.resizing import empty_like, part


@register
class Tables(ResizableModule):
    """``nn.Embedding``: entries of all members side by side, each member's its own table.

    Members take the original's channels from the first on. Where they are more than it has, they
    come again with the rows moved on by one, so that no two members look up the same.
    """

    name = "table"
    modules = (nn.Embedding,)
    forwards = True
    axis = -1
    cases = (Case(lambda: nn.Embedding(5, 4), ((2, 3),), integers=5),)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        table = expect(module, (nn.Embedding,), forwards=True)
        if table.max_norm is not None:
            raise RewriteError(
                "an Embedding with max_norm norms all channels together",
                advice="leave max_norm out, or exclude the layer",
            )
        own, size = table.weight.detach(), multiplicity * width
        turns = -(-size // own.shape[1])
        more = torch.cat([own.roll(turn, 0) for turn in range(turns)], 1)[:, :size].clone()
        if table.padding_idx is not None:
            more[table.padding_idx] = own[table.padding_idx].repeat(turns)[:size]
        return _at(table, more)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        table = expect(module, (nn.Embedding,), forwards=True)
        own = part(index, table.weight.shape[1] // multiplicity)
        return _at(table, table.weight.detach()[:, own].clone())


def _at(table: nn.Embedding, weight: Tensor) -> nn.Module:
    """A copy of a table with other entries."""
    shapes = {"weight": tuple(weight.shape)}
    new = empty_like(resized_copy(table, shapes, embedding_dim=weight.shape[1]), table)
    with torch.no_grad():
        new.weight.copy_(weight)
        for name, buffer in table.named_buffers():  # factors
            new.get_buffer(name).copy_(buffer)
    return new
