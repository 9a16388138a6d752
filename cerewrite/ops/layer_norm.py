"""Layer norms over the channels: on the last axis, or on axis 1 of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.ir import Op
from cerewrite.nn import ChannelLayerNorm as MemberChannelNorm
from cerewrite.nn import MemberLayerNorm
from cerewrite.ops.base import Channels, Saved, WidthBuilder, register
from cerewrite.ops.called_norm import CalledNorm
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import axis_order
from cerewrite.ops.norms import CalledModule, LastAxisModule, LastAxisNorm, NormModule
from cerewrite.ops.own_forwards import bound_to_width, has_own_forward
from cerewrite.ops.resizing import (
    check_size,
    fill,
    own_settings,
    part,
    slice_channels,
)


class _LayerNormModule(LastAxisModule):
    """One layer norm per member."""

    modules = (nn.LayerNorm,)
    built = (MemberLayerNorm,)

    @override
    def options(self, module: nn.Module) -> dict[str, Any]:
        return {"bias": "bias" in dict(module.named_parameters())}


@register
class OwnLayerNorm(_LayerNormModule):
    """A layer norm whose module writes the stock forward anew."""

    name = "own_layer_norm"
    forward_anew = True
    cases = (module_case(lambda: nn.LayerNorm(4), (3, 4)),)


@register
class CalledLayerNorm(CalledModule):
    """A layer norm that a module of the user's own calls as a function."""

    name = "called_layer_norm"
    modules = (CalledNorm,)
    built = (MemberLayerNorm, nn.LayerNorm)
    stock = OwnLayerNorm()
    cases = (module_case(lambda: CalledNorm(4), (3, 4)),)


@register
class LayerNorm(_LayerNormModule, LastAxisNorm):
    """Layer norm over the channels: one norm per member in an ensemble."""

    name = "layer_norm"
    targets = frozenset({"layer_norm", "native_layer_norm"})
    figures = 2
    called = CalledLayerNorm()
    cases = (
        module_case(lambda: nn.LayerNorm(4), (3, 4)),
        module_case(lambda: nn.LayerNorm(4, bias=False), (2, 3, 4)),
        module_case(lambda: nn.LayerNorm(4, elementwise_affine=False), (3, 4)),
    )
    leaves = ((nn.LayerNorm, "layer_norm"),)

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """The norm that takes its place in a split keeps the normalised input for its scale."""
        scaled = len(op.inputs) > 1
        return replace(super().saved(op, module), split=op.numel if scaled else 0)

    @override
    def note(self, op: Op, channels: Channels, widths: WidthBuilder) -> None:
        module, body = widths.module(op), widths.body(op)
        if isinstance(module, nn.LayerNorm) and _is_channels_first(body):
            widths.per_channel(op, ChannelLayerNorm(), channels, types=(type(module),))
        elif isinstance(module, nn.LayerNorm) and _is_stock(op, body, module):
            widths.per_channel(op, OwnLayerNorm(), channels, types=(type(module),))
        else:
            super().note(op, channels, widths)


@register
class ChannelLayerNorm(NormModule):
    """A layer norm whose module permutes images' channels last and back."""

    name = "channel_layer_norm"
    modules = (nn.LayerNorm,)
    built = (MemberChannelNorm,)
    least = 2
    mixes = True
    gathers = True
    cases = (module_case(lambda: nn.LayerNorm(4), (3, 4, 2, 2)),)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        if not isinstance(module, nn.LayerNorm):
            raise RewriteError(
                f"a {type(module).__name__} is no layer norm", advice="make the plan again"
            )
        check_size(module, "normalised axes", len(module.normalized_shape), 1)
        size = multiplicity * width
        resized = _channel_norm(module, size, multiplicity, module.eps)
        return fill(resized, module, size, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        assert isinstance(module, MemberChannelNorm) and module.eps is not None
        width = module.features // multiplicity
        own = own_settings(module, part(index, width))
        return slice_channels(_channel_norm(module, width, 1, module.eps), module, **own)


def _channel_norm(module: nn.Module, size: int, members: int, eps: float) -> MemberChannelNorm:
    parameters = dict(module.named_parameters())
    return MemberChannelNorm(
        size,
        members,
        eps,
        elementwise_affine="weight" in parameters,
        bias="bias" in parameters,
        device="meta",
        dtype=parameters["weight"].dtype if parameters else None,
    )


def _is_stock(op: Op, body: Sequence[Op], module: nn.LayerNorm) -> bool:
    """Whether all that a forward of a subclass's own runs is one layer norm with its settings."""
    named = op.kwargs or {}
    eps = op.args[4] if len(op.args) > 4 else named.get("eps", 1e-5)
    tensors = 1 + len(list(module.parameters(recurse=False)))
    own = has_own_forward(module, (nn.LayerNorm,))
    same = len(body) == 1 and eps == module.eps and len(op.inputs) == tensors
    return own and same and bound_to_width(module, (nn.LayerNorm,)) is None


def _is_channels_first(body: Sequence[Op]) -> bool:
    """Whether a module's operators are: axis 1 to the end, a layer norm, and back."""
    if len(body) != 3 or {body[0].target, body[2].target} != {"permute"}:
        return False
    rank = len(body[0].shape)
    last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    return axis_order(body[0], rank) == last and axis_order(body[2], rank) == first
