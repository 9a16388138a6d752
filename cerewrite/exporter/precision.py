"""Models and inputs in another floating-point type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.errors import ExportError
from cerewrite.exporter.reasons import reason
from cerewrite.rewriting.record import copy_sharing_record


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a model whose floating-point parameters and buffers have another type.

    Raises:
        ExportError: if the model cannot be copied.

    Example:
        >>> cast(nn.Linear(2, 2), torch.float16).weight.dtype
        torch.float16
    """
    stand_ins: dict[int, Any] = {
        id(p): nn.Parameter(cast_inputs(p.detach(), dtype), requires_grad=p.is_floating_point())
        for p in model.parameters()
    }
    stand_ins.update({id(b): cast_inputs(b, dtype).clone() for b in model.buffers()})
    try:
        return copy_sharing_record(model, stand_ins)
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be copied to {dtype}: {reason(error)}",
            advice="give the model itself in that type, such as model.half()",
        ) from error


def widened(model: nn.Module) -> nn.Module:
    """A model in float32: itself where it is, else a copy.

    Raises:
        ExportError: if the model cannot be copied.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> widened(layer) is layer, widened(layer.double()).weight.dtype
        (True, torch.float32)
    """
    tensors = (*model.parameters(), *model.buffers())
    wide = all(t.dtype == torch.float32 for t in tensors if t.is_floating_point())
    return model if wide else cast(model, torch.float32)


def cast_inputs(inputs: Any, dtype: torch.dtype) -> Any:
    """Inputs whose floating-point tensors have another type; the rest as it was."""

    def one(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(torch.Tensor, one, inputs)


def is_16_bit(model: nn.Module) -> bool:
    """Whether some floating-point parameter has 16 bits."""
    return any(p.is_floating_point() and p.element_size() < 4 for p in model.parameters())
