"""Transposed convolutions in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from cerewrite.ir import Op, RegionLayer
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.nn.channel_reorder import (
    ConcatConvTranspose1d,
    ConcatConvTranspose2d,
    ConcatConvTranspose3d,
)
from cerewrite.nn.scaled import (
    ScaledConvTranspose1d,
    ScaledConvTranspose2d,
    ScaledConvTranspose3d,
)
from cerewrite.ops.base import Channels, LayerRule, Value, WidthBuilder, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import on_axis
from cerewrite.ops.modules import ConcatenationLayer, Geometry, weight_of
from cerewrite.ops.own_forwards import expect
from cerewrite.ops.resizing import chunk, convolution_options, split_convolution, take_parameters

AnyTransposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_MODULES: tuple[type[AnyTransposed], ...] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_SCALED: tuple[type[AnyTransposed], ...] = (
    ScaledConvTranspose1d,
    ScaledConvTranspose2d,
    ScaledConvTranspose3d,
)
_CONCATENATED: dict[type[AnyTransposed], type[Any]] = {
    nn.ConvTranspose1d: ConcatConvTranspose1d,
    nn.ConvTranspose2d: ConcatConvTranspose2d,
    nn.ConvTranspose3d: ConcatConvTranspose3d,
}


def _like(
    module: AnyTransposed,
    channels: tuple[int, int],
    groups: int,
    *,
    bias: bool,
    kind: type[Any] | None = None,
    **further: Any,
) -> AnyTransposed:
    """A transposed convolution with the geometry of another, on meta; stock if no kind is given."""
    stock: type[Any] = next(stock for stock in _MODULES if isinstance(module, stock))
    further |= convolution_options(module, "output_padding")
    conv: AnyTransposed = (kind or stock)(*channels, groups=groups, bias=bias, **further)
    return conv


def _same(conv: AnyTransposed, **kind: Any) -> AnyTransposed:
    """A transposed convolution of another kind with the sizes and parameters of one."""
    channels = conv.in_channels, conv.out_channels
    return take_parameters(
        _like(conv, channels, conv.groups, bias=conv.bias is not None, **kind), conv
    )


@register
class ConvTranspose(LayerRule, ConcatenationLayer):
    """Every input position adds its kernel to the output; weight ``[in, out / groups, *kernel]``.

    An output position gets ``kernel * input positions / output positions`` taps of each input
    channel on average, so that ``q`` and ``T`` pass like through a linear layer with that share
    of the fan-in; which positions get more of them is not followed.
    """

    name = "conv_transpose"
    targets = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
    modules = _MODULES
    cases = (
        module_case(lambda: nn.ConvTranspose1d(4, 6, 3, 2), (2, 4, 5)),
        module_case(lambda: nn.ConvTranspose2d(4, 4, 3, groups=2), (2, 4, 4, 4)),
    )
    leaves = tuple((kind, f"conv_transpose{d}d") for d, kind in enumerate(_MODULES, 1))

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        space = len(weight) - 2
        outputs = op.shape[-space - 1]
        read = prod(x.op.shape[-space:])
        return Geometry(weight[0], outputs, outputs // weight[1], prod(weight[2:]), read)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        x = on_axis(op, inputs[0], widths, 1)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        layer = context.layers[op.name]
        x = context.read(inputs[0])
        share = layer.positions / prod(op.shape[2:])
        thinned = replace(x, q=share * x.q, kernel=share * x.kernel, common=share * x.common)
        return context.weigh(layer, thinned)

    @override
    def member_weight(
        self, module: nn.Module, writer: tuple[int, int], reader: tuple[int, int]
    ) -> Tensor:
        """A view ``[out, in / groups, *kernel]`` of the transposed weight."""
        weight = module.get_parameter("weight").detach()
        rows = chunk(weight, 0 if _groups(module) > 1 else 1, *writer)
        return chunk(rows, 0, *reader).transpose(0, 1)

    @override
    def reordering(self, module: nn.Module, parts: tuple[int, ...]) -> nn.Module:
        conv = expect(module, _MODULES)
        return _same(conv, kind=_CONCATENATED[type(conv)], parts=parts)

    @override
    def plain(self, module: nn.Module) -> nn.Module:
        kind = next(kind for kind, own in _CONCATENATED.items() if isinstance(module, own))
        assert isinstance(module, kind)
        return _same(module)

    @override
    def fan_in(self, module: nn.Module) -> int:
        """Weights that an output unit far from the borders reads by, at stride 1.

        Example:
            >>> ConvTranspose().fan_in(nn.ConvTranspose2d(4, 6, 3, groups=2))
            18
        """
        weight = weight_of(module)
        return weight.shape[0] // _groups(module) * weight[0, 0].numel()

    @override
    def multiply_adds(self, module: nn.Module, input: Tensor, output: Tensor) -> int:
        return input.numel() * weight_of(module)[0].numel()

    @override
    def split(
        self, module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
    ) -> nn.Module:
        return split_convolution(expect(module, _MODULES), layer, multiplicity, widths, _like)

    @override
    def narrow(
        self, module: nn.Module, shape: tuple[int, ...], groups: int, *, bias: bool
    ) -> nn.Module:
        conv = expect(module, (*_SCALED, *_MODULES))
        return _like(conv, (shape[1], shape[0] * groups), groups, bias=bias)


def _groups(module: nn.Module) -> int:
    return int(getattr(module, "groups", 1))
