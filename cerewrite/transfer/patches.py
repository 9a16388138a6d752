"""What a linear or convolution layer reads and writes, as rows: one per example and position."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Rows:
    """Which output positions of a layer are looked at.

    Attributes:
        picked: flat positions over ``(batch, *positions)``, in order.
    """

    picked: Tensor

    @classmethod
    def choose(cls, count: int, generator: torch.Generator) -> Rows:
        """All of ``count`` positions, or `MOST_ROWS` random ones of them."""
        picked = torch.randperm(count, generator=generator)[:MOST_ROWS]
        return cls(picked.sort().values)


def positions(module: nn.Module, output: Tensor) -> int:
    """Output positions of a layer, all examples together."""
    channels = module.get_parameter("weight").shape[0] if _is_conv(module) else output.shape[-1]
    return output.numel() // channels


def written_rows(module: nn.Module, output: Tensor, rows: Rows) -> Tensor:
    """Some of a layer's outputs: ``[rows, out]``."""
    last = output.movedim(1, -1) if _is_conv(module) else output
    return last.reshape(-1, last.shape[-1])[rows.picked.to(output.device)]


def read_rows(module: nn.Module, input: Tensor, channels: int, rows: Rows) -> Tensor:
    """What a layer reads to write these outputs: ``[rows, channels, kernel elements]``.

    Args:
        module: a linear, block-diagonal or convolution layer.
        input: its input.
        channels: channels of its input; a flattened input has several features of each.
        rows: which outputs.
    """
    picked = rows.picked.to(input.device)
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return input.reshape(-1, input.shape[-1])[picked].reshape(len(picked), channels, -1)
    view = _windows(module, input)
    dims = len(module.kernel_size)
    view = view.movedim(1, 1 + dims)
    where = torch.unravel_index(picked, view.shape[: 1 + dims])
    return view[where].reshape(len(picked), channels, prod(module.kernel_size))


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _windows(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, input: Tensor) -> Tensor:
    """All windows of a convolution, a view: ``[batch, channels, *positions, *kernel]``."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    view = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    settings = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(settings):
        view = view.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return view
