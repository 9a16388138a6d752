"""What a linear or convolution layer reads and writes, as rows: one per example and position."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.ops import sampled_of
from cerewrite.ops.conv import AnyConv, Conv
from cerewrite.ops.conv_transpose import AnyTransposed, ConvTranspose

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
    return output.numel() // output.shape[_axis(module)]


def written_rows(module: nn.Module, output: Tensor, rows: Rows) -> Tensor:
    """Some of a layer's outputs: ``[rows, out]``."""
    last = output.movedim(_axis(module), -1)
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
    if isinstance(module, ConvTranspose.modules):
        view = _scattered(module, input)
    elif isinstance(module, Conv.modules):
        view = _windows(module, input)
    else:
        return input.reshape(-1, input.shape[-1])[picked].reshape(len(picked), channels, -1)
    dims = len(module.kernel_size)
    view = view.movedim(1, 1 + dims)
    where = torch.unravel_index(picked, view.shape[: 1 + dims])
    return view[where].reshape(len(picked), channels, prod(module.kernel_size))


def _axis(module: nn.Module) -> int:
    rule = sampled_of(module)
    assert rule is not None, type(module)
    return rule.axis


def _windows(conv: AnyConv, input: Tensor) -> Tensor:
    """All windows of a convolution, a view: ``[batch, channels, *positions, *kernel]``."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    view = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
    settings = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(settings):
        view = view.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return view


def _scattered(conv: AnyTransposed, input: Tensor) -> Tensor:
    """The windows of a transposed convolution: those of a plain one over spread-out inputs."""
    settings = zip(
        conv.kernel_size, conv.stride, conv.dilation, conv.padding, conv.output_padding, strict=True
    )
    view = input
    for axis, (size, stride, dilation, padding, extra) in enumerate(settings):
        assert isinstance(padding, int)
        place = 2 + axis
        spread = view.new_zeros(
            *view.shape[:place], (view.shape[place] - 1) * stride + 1, *view.shape[place + 1 :]
        )
        spread[(slice(None),) * place + (slice(None, None, stride),)] = view
        reach = dilation * (size - 1)
        edges = [0, 0] * (view.dim() - place - 1) + [reach - padding, reach - padding + extra]
        windows = F.pad(spread, edges).unfold(place, reach + 1, 1)[..., ::dilation]
        view = windows.flip(-1)
    return view
