"""Linear layers: dense entries and exits, block-diagonal interiors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.ir import Op, RegionLayer
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.nn.channel_reorder import ConcatLinear, ConcatPartedLinear, PartedLinear
from cerewrite.ops.base import Channels, LayerRule, Value, WidthBuilder, register
from cerewrite.ops.cases import Case, module_case
from cerewrite.ops.layout import on_axis
from cerewrite.ops.modules import ConcatenationLayer, Geometry
from cerewrite.ops.own_forwards import expect, has_own_forward
from cerewrite.ops.resizing import empty_like, ensemble_sizes, take_parameters


@register
class Linear(LayerRule, ConcatenationLayer):
    """``y = W x + b`` over the last axis; weight ``[out, in]``."""

    name = "linear"
    targets = frozenset({"linear"})
    modules: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)
    built: ClassVar[tuple[type[nn.Module], ...]] = (BlockDiagonalLinear, PartedLinear)
    axis = -1
    parted = True
    cases: ClassVar[tuple[Case, ...]] = (
        module_case(lambda: nn.Linear(6, 4), (3, 6)),
        module_case(lambda: nn.Linear(6, 4, bias=False), (2, 5, 6)),
    )
    leaves: ClassVar[tuple[tuple[type[nn.Module], str], ...]] = ((nn.Linear, "linear"),)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        inner = x.channels.inner if x.channels is not None else 1
        return Geometry(weight[1] // inner, weight[0], 1, inner)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        last = len(inputs[0].op.shape) - 1
        x = on_axis(op, inputs[0], widths, last, flattened=True)
        width = widths.layer(op, self, x)
        return None if width is None else Channels(len(op.shape) - 1, width)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        x = context.read(inputs[0])
        return context.weigh(context.layers[op.name], x)

    @override
    def inner(self, layer: RegionLayer) -> int:
        return layer.kernel

    @override
    def member_weights(self, module: nn.Module, writers: int, readers: int) -> list[list[Tensor]]:
        if isinstance(module, BlockDiagonalLinear):
            return [[block.T] for block in module.weight.detach()]
        return super().member_weights(module, writers, readers)

    @override
    def member_weight(
        self, module: nn.Module, writer: tuple[int, int], reader: tuple[int, int]
    ) -> Tensor:
        if isinstance(module, BlockDiagonalLinear):
            return module.weight.detach()[writer[0]].T
        return super().member_weight(module, writer, reader)

    @override
    def fan_in(self, module: nn.Module) -> int:
        """Inputs of one member.

        Example:
            >>> Linear().fan_in(BlockDiagonalLinear(6, 4, 2))
            3
        """
        if isinstance(module, BlockDiagonalLinear):
            return module.weight.shape[1]
        return super().fan_in(module)

    @override
    def split(
        self, module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
    ) -> nn.Module:
        """A `torch.nn.Linear` for entries and exits, a `BlockDiagonalLinear` inside.

        One member alone has a plain linear layer. ``layer.kernel`` counts the elements per channel
        that a channel-major flatten left on the input.
        """
        linear: nn.Linear | BlockDiagonalLinear
        if isinstance(module, BlockDiagonalLinear):
            linear = expect(module, (BlockDiagonalLinear,))
        elif has_own_forward(module, (nn.Linear,)):  # the trace has seen one product in it
            linear = _stock(module)
        else:
            linear = expect(module, (nn.Linear,))
        bias = linear.bias is not None
        own = linear.in_features, linear.out_features
        n_in, n_out = ensemble_sizes(
            linear, layer, multiplicity, widths, own, inner=layer.kernel, what="features"
        )
        dtype = linear.weight.dtype
        if layer.role == "interior" and multiplicity > 1:
            sizes = (n_in, n_out, multiplicity)
            blocks = BlockDiagonalLinear(*sizes, bias, device="meta", dtype=dtype)
            if len(layer.writes) > 1:
                written = layer.parts(multiplicity * widths[layer.target])
                blocks = PartedLinear(*sizes, bias, written=written, device="meta", dtype=dtype)
            return empty_like(blocks, linear)
        return empty_like(nn.Linear(n_in, n_out, bias, device="meta", dtype=dtype), linear)

    @override
    def narrow(
        self, module: nn.Module, shape: tuple[int, ...], groups: int, *, bias: bool
    ) -> nn.Module:
        dtype = module.get_parameter("weight").dtype
        return nn.Linear(shape[1], shape[0], bias, device="meta", dtype=dtype)

    @override
    def reordering(self, module: nn.Module, parts: tuple[int, ...]) -> nn.Module:
        assert isinstance(module, BlockDiagonalLinear)
        sizes = (module.in_features, module.out_features, module.members)
        bias, dtype = module.bias is not None, module.weight.dtype
        options: dict[str, Any] = {"parts": parts, "device": "meta", "dtype": dtype}
        if isinstance(module, PartedLinear):
            parted = ConcatPartedLinear(*sizes, bias, written=module.written, **options)
            return take_parameters(parted, module)
        return take_parameters(ConcatLinear(*sizes, bias, **options), module)

    @override
    def plain(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, BlockDiagonalLinear)
        sizes = (module.in_features, module.out_features, module.members)
        new = BlockDiagonalLinear(*sizes, module.bias is not None, device="meta")
        return take_parameters(new, module)


class Turned(nn.Module):
    """``y = x W + b`` with ``W [in, out]``: a case of `LinearTurned`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return torch.addmm(self.bias, x, self.weight)


@register
class LinearTurned(Linear):
    """``y = x W + b`` with ``W [in, out]``: written as a product, or a layer that holds it so.

    In a split a stock linear layer takes the place of a module that is this product and no more.
    """

    name = "linear_turned"
    targets = frozenset({"linear_turned"})
    modules = (Turned,)
    built = ()
    leaves = ()
    cases = (module_case(lambda: Turned(6, 4), (3, 6)),)

    @override
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        inner = x.channels.inner if x.channels is not None else 1
        return Geometry(weight[0] // inner, weight[1], 1, inner)

    @override
    def fan_in(self, module: nn.Module) -> int:
        """Rows of the weight, of a layer that has it turned.

        Example:
            >>> LinearTurned().fan_in(Turned(6, 4))
            6
        """
        if isinstance(module, nn.Linear | BlockDiagonalLinear):
            return super().fan_in(module)
        return module.get_parameter("weight").shape[0]

    @override
    def split(
        self, module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
    ) -> nn.Module:
        if isinstance(module, nn.Linear | BlockDiagonalLinear):
            return super().split(module, layer, multiplicity, widths)
        return super().split(_stock(module, turned=True), layer, multiplicity, widths)


def _stock(module: nn.Module, *, turned: bool = False) -> nn.Linear:
    """A stock layer with the weight and bias of a module that is one product with them."""
    held = dict(module.named_parameters())
    if set(held) - {"weight", "bias"} or "weight" not in held or module._buffers:
        raise RewriteError(
            f"a {type(module).__name__} is no product with a weight",
            advice="make the plan again for this model",
        )
    weight = held["weight"]
    values = weight.detach().T if turned else weight.detach()
    new = nn.Linear(values.shape[1], values.shape[0], "bias" in held, device="meta")
    new.weight = nn.Parameter(values, requires_grad=weight.requires_grad)
    if "bias" in held:
        new.bias = held["bias"]
    return new.train(module.training)
