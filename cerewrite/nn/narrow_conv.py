"""Grouped convolutions of narrow members, by the quickest that torch has for their widths.

oneDNN's kernels take channels in blocks. A group whose widths are no multiples of the block falls
to a slower kernel, so that filling every member up with zeros is quicker although it is more work;
a convolution of size 1 on contiguous maps is a batched product. Which is quicker where is a rule
read off measured times (docs/NARROW.md), so that equal runs compute equal values.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.conv import _ConvNd

from cerewrite.nn.blockwise import ONEDNN, eager

C = TypeVar("C", bound=nn.Module)

BLOCK = 8
"""Channels of a group at whose multiples oneDNN's kernels are quick."""
MOST = 2.6
"""Weights with zeros over weights without, up to which padding is the quicker."""
MOST_OF_FOURS = (1.8, 1.5)
"""The same where all widths are multiples of 4, which are quicker as they are than others, on
maps up to `SMALL` and above."""
SMALL = 256
"""Positions of a map up to which copies stay in the cache."""
POSITIONS = 512
"""Output positions of a batch from which padding is the quicker."""
PIXELS = 64
"""Positions of a map from which a batched product is quicker than a convolution of size 1."""
WIDEST = 64
"""Widths of a member up to which it is."""


class _Narrow(_ConvNd):
    """What the convolutions below share: the stock layer's parameters, names, values and repr."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        way = way_of(self, input, weight, bias)
        if way is None:
            return super()._conv_forward(input, weight, bias)
        settings = (self.stride, self.padding, self.dilation, self.groups)
        result: Tensor = way.apply(input, weight, bias, settings)  # type: ignore[no-untyped-call]
        return result

    def __prepare_scriptable__(self) -> nn.Module:
        return _as(STOCK[type(self)], self)  # TorchScript gets the stock layer

    def _get_name(self) -> str:
        return STOCK[type(self)].__name__


class NarrowConv1d(_Narrow, nn.Conv1d):
    """A grouped `torch.nn.Conv1d` whose members are narrow."""


class NarrowConv2d(_Narrow, nn.Conv2d):
    """A grouped `torch.nn.Conv2d` whose members are narrow.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> plain = nn.Conv2d(15, 21, 3, groups=3)
        >>> layer, x = narrow(plain), torch.randn(32, 15, 8, 8)
        >>> layer.weight is plain.weight, repr(layer) == repr(plain)
        (True, True)
        >>> torch.allclose(layer(x), plain(x), atol=1e-6)
        True
    """


class NarrowConv3d(_Narrow, nn.Conv3d):
    """A grouped `torch.nn.Conv3d` whose members are narrow."""


STOCK: dict[type[nn.Module], type[_ConvNd]] = {
    NarrowConv1d: nn.Conv1d,
    NarrowConv2d: nn.Conv2d,
    NarrowConv3d: nn.Conv3d,
}
"""The stock type whose parameters, settings and values each of them has."""

_NARROW = {stock: kind for kind, stock in STOCK.items()}


def narrow(conv: _ConvNd) -> _ConvNd:
    """The same convolution, which takes the quicker way.

    Args:
        conv: a convolution; parameters and settings are shared. One of a single group, or with a
            forward of its own, is returned as it is.
    """
    kind = _NARROW.get(type(conv))
    if kind is None or conv.groups == 1:
        return conv
    return _as(kind, conv)  # type: ignore[return-value]  # a subclass of the convolution's type


def _as(kind: type[C], conv: nn.Module) -> C:
    """A module of another type with the parameters and settings of one."""
    twin = kind.__new__(kind)
    vars(twin).update(vars(conv))
    return twin


def way_of(
    conv: _ConvNd, x: Tensor, weight: Tensor, bias: Tensor | None
) -> type[torch.autograd.Function] | None:
    """How a grouped convolution is computed; None for the stock operator.

    Only float32 on the CPU in eager mode, on contiguous maps, was measured to gain. Tracing,
    compilation, export, `torch.func`, autocast, modes and tensor subclasses see the stock operator.

    Args:
        conv: its settings.
        x: ``[batch, members * n_in, *map]``.
        weight: ``[members * n_out, n_in, *kernel]``.
        bias: ``[members * n_out]``, or None.
    """
    if (
        not ONEDNN
        or not eager(x, weight, bias)  # first: anything else may be no tensor
        or weight.dtype != torch.float32
        or conv.padding_mode != "zeros"
        or isinstance(conv.padding, str)
        or x.dim() != weight.dim()
        or x.shape[1] != conv.in_channels
        or not x.numel()
        or not (x.is_contiguous() and weight.is_contiguous())
        or torch._C._len_torch_dispatch_stack()
    ):
        return None
    n_in, n_out = weight.shape[1], weight.shape[0] // conv.groups
    fours = n_in % 4 == n_out % 4 == 0
    if prod(conv.kernel_size) == 1:
        plain = set(conv.stride) == {1} and not any(conv.padding)
        fits = fours and max(n_in, n_out) <= WIDEST and x[0, 0].numel() >= PIXELS
        return _Product if plain and fits else None
    more = (n_in + -n_in % BLOCK) * (n_out + -n_out % BLOCK) / (n_in * n_out)
    if torch.get_num_threads() > 1:  # copies share what threads do not: it was slower on two
        return None
    most = MOST_OF_FOURS[x[0, 0].numel() > SMALL] if fours else MOST
    enough = x.numel() // x.shape[1] >= POSITIONS * prod(conv.stride)
    return _Padded if enough and 1 < more <= most else None


Settings = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding, dilation and groups."""
Gradients = tuple[Tensor | None, ...]


class _Way(torch.autograd.Function):
    """Keeps for backward what the stock operator keeps, and no more."""

    @staticmethod
    def keep(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> None:
        ctx.save_for_backward(x, weight, bias)
        ctx.settings = settings

    @staticmethod
    def twice(ctx: Any, given: Tensor) -> Gradients | None:
        """The stock operator's gradients, where they are to be differentiated again."""
        if not torch.is_grad_enabled():
            return None
        stride, padding, dilation, groups = ctx.settings
        x, weight, bias = ctx.saved_tensors
        inputs = [t for t, n in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if n]
        y = torch.convolution(
            x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups
        )
        found = iter(torch.autograd.grad(y, inputs, given, create_graph=True))
        return (*(next(found) if n else None for n in ctx.needs_input_grad[:3]), None)


class _Padded(_Way):
    """Every member's channels filled up with zeros to whole blocks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings
    ) -> Tensor:
        """``[batch, members * n_in, *map]`` to ``[batch, members * n_out, *map]``."""
        _Way.keep(ctx, x, weight, bias, settings)
        stride, padding, dilation, groups = settings
        n_out = weight.shape[0] // groups
        wide = None if bias is None else _filled(bias[None], groups)[0]
        y = torch.convolution(
            _filled(x, groups), _whole(weight, groups), wide,
            stride, padding, dilation, False, [0] * len(stride), groups,
        )  # fmt: skip
        return _own(y, groups, n_out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """By the kernels of the wider convolution."""
        (given,) = gradients
        again = _Way.twice(ctx, given)
        if again is not None:
            return again
        x, weight, _ = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        n_in, n_out = weight.shape[1], weight.shape[0] // groups
        wide = _filled(given.contiguous(), groups)
        to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
            wide, _filled(x, groups), _whole(weight, groups), [wide.shape[1]],
            stride, padding, dilation, False, [0] * len(stride), groups, ctx.needs_input_grad[:3],
        )  # fmt: skip
        if to_x is not None:
            to_x = _own(to_x, groups, n_in)
        if to_weight is not None:
            blocks = to_weight.view(groups, -1, *to_weight.shape[1:])
            to_weight = blocks[:, :n_out, :n_in].reshape(weight.shape)
        if to_bias is not None:
            to_bias = _own(to_bias[None], groups, n_out)[0]
        return to_x, to_weight, to_bias, None


def _filled(x: Tensor, groups: int) -> Tensor:
    """``[batch, groups * n, *map]`` with zeros behind every group's channels; itself if whole."""
    width = x.shape[1] // groups
    more = -width % BLOCK
    if not more:
        return x
    apart = x.reshape(x.shape[0], groups, -1)  # a group's channels lie side by side
    return pad(apart, (0, more * (apart.shape[2] // width))).view(x.shape[0], -1, *x.shape[2:])


def _own(y: Tensor, groups: int, width: int) -> Tensor:
    """The channels of `_filled` that are no zeros, contiguous."""
    if y.shape[1] == groups * width:
        return y
    apart = y.reshape(y.shape[0], groups, y.shape[1] // groups, *y.shape[2:])
    return apart[:, :, :width].reshape(y.shape[0], groups * width, *y.shape[2:])


def _whole(weight: Tensor, groups: int) -> Tensor:
    """``[groups * n_out, n_in, *kernel]`` with zeros behind both widths."""
    n_out, n_in = weight.shape[0] // groups, weight.shape[1]
    kernel = (0, 0) * (weight.dim() - 2)
    blocks = weight.view(groups, n_out, *weight.shape[1:])
    return pad(blocks, (*kernel, 0, -n_in % BLOCK, 0, -n_out % BLOCK)).flatten(0, 1)


class _Product(_Way):
    """A convolution of size 1 as a product of every member's weight and every map."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings
    ) -> Tensor:
        """``[batch, members * n_in, *map]`` to ``[batch, members * n_out, *map]``."""
        _Way.keep(ctx, x, weight, bias, settings)
        groups = settings[3]
        kernel, maps = _spread(weight, x.shape[0], groups), _maps(x, groups)
        if bias is None:
            y = torch.bmm(kernel, maps)
        else:
            own = bias.view(groups, -1, 1).expand(x.shape[0], -1, -1, 1)
            y = torch.baddbmm(own.reshape(len(maps), -1, 1), kernel, maps)
        return y.view(x.shape[0], weight.shape[0], *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Two products, the weight's summed over the batch."""
        (given,) = gradients
        again = _Way.twice(ctx, given)
        if again is not None:
            return again
        x, weight, _ = ctx.saved_tensors
        groups = ctx.settings[3]
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        pull = _maps(given.contiguous(), groups)
        to_x = to_weight = to_bias = None
        if for_x:
            to_x = torch.bmm(_spread(weight, x.shape[0], groups).transpose(1, 2), pull).view_as(x)
        if for_weight:
            each = torch.bmm(pull, _maps(x, groups).transpose(1, 2))
            to_weight = each.view(-1, groups, *each.shape[1:]).sum(0).view(weight.shape)
        if for_bias:
            to_bias = given.flatten(2).sum((0, 2))
        return to_x, to_weight, to_bias, None


def _maps(x: Tensor, groups: int) -> Tensor:
    """``[batch * groups, n, positions]``, a view."""
    return x.view(x.shape[0] * groups, x.shape[1] // groups, -1)


def _spread(weight: Tensor, batch: int, groups: int) -> Tensor:
    """``[batch * groups, n_out, n_in]``."""
    blocks = weight.view(groups, -1, weight.shape[1])
    return blocks.expand(batch, -1, -1, -1).reshape(batch * groups, *blocks.shape[1:])
