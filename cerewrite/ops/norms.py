"""What norms share: each member is normalised by itself, and the input's scale is divided out.

Per-channel settings (scale, shift, running statistics) keep their constant where they are constant
over the channels, and their mean where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import normalise
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, ModuleRule, Saved, Value, WidthBuilder
from cerewrite.ops.called_norm import as_stock, is_called
from cerewrite.ops.layout import bound
from cerewrite.ops.modules import Draw, ResizableModule
from cerewrite.ops.own_forwards import expect
from cerewrite.ops.resizing import (
    check_size,
    dtype_of,
    fill,
    own_settings,
    part,
    slice_channels,
)


class NormModule(ResizableModule):
    """A module that norms, whatever operators its forward is made of."""

    @override
    def perturb(self, module: nn.Module, normal: Draw, uniform: Draw) -> None:
        """Scales by 1 +- 0.2, shifts and means by 0.1, variances by a factor in [0.5, 1.5]."""
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is not None:
            weight.masked_fill_(weight == 0, 1).mul_(1 + 0.2 * normal(weight))
        if bias is not None:
            bias += 0.1 * normal(bias)
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if mean is not None and variance is not None:
            mean += 0.1 * normal(mean) * variance.sqrt()
            variance *= 0.5 + uniform(variance)


class LastAxisModule(NormModule):
    """A norm over the last axis: one per member.

    Attributes:
        forward_anew: whether a subclass may write the stock forward anew, as the trace has shown.
    """

    axis = -1
    least = 2
    mixes = True
    gathers = True
    forward_anew: ClassVar[bool] = False

    def options(self, module: nn.Module) -> dict[str, Any]:
        """Arguments of the stock type besides sizes, eps, scale and dtype."""
        return {}

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """One member alone has the stock type."""
        norm: Any = expect(module, self.modules, forwards=self.forward_anew)
        check_size(norm, "normalised axes", len(norm.normalized_shape), 1)
        size = multiplicity * width
        options = self.options(norm) | {"device": "meta", "dtype": dtype_of(norm)}
        kind: type[Any] = self.modules[0] if multiplicity == 1 else self.built[0]
        sizes = (size,) if multiplicity == 1 else (size, multiplicity)
        resized: nn.Module = kind(*sizes, norm.eps, norm.elementwise_affine, **options)
        return fill(resized, norm, size, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        norm: Any = module
        if isinstance(module, self.built):
            width = norm.features // multiplicity
        else:
            norm = expect(module, self.modules)
            width = norm.normalized_shape[0] // multiplicity
        own = own_settings(norm, part(index, width))
        options = self.options(norm) | {"device": "meta", "dtype": dtype_of(norm)}
        kind: type[Any] = self.modules[0]
        narrow: nn.Module = kind(width, norm.eps, "weight" in own, **options)
        return slice_channels(narrow, norm, **own)


class CalledModule(NormModule):
    """A norm over the last axis that a module of the user's own calls as a function.

    Attributes:
        stock: the rule of the stock module that takes its place.
    """

    axis = -1
    least = 2
    mixes = True
    stock: ClassVar[LastAxisModule]

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        return self.stock.resize(self._as_stock(module), multiplicity, width)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        return self.stock.member(self._as_stock(module), index, multiplicity)

    def _as_stock(self, module: nn.Module) -> nn.Module:
        return module if isinstance(module, self.built) else as_stock(module)


class Norm(NormModule, ModuleRule):
    """``q = gamma^2 + beta^2`` and ``T = gamma^2 T / q``: the input's scale is divided out.

    Attributes:
        centred: whether it subtracts the mean over units.
    """

    centred: ClassVar[bool] = True
    keeps = Saved(reads=True)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return normalise(context, op, inputs[0], centred=self.centred)


class ChannelNorm(Norm):
    """A norm over examples or positions, channels on axis 1."""

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if replace(value.channels, width=0) != Channels(1, 0):
            bound(op, value, widths, "normalises an axis other than the channels")
            return None
        widths.per_channel(op, self, value.channels)
        return value.channels


class LastAxisNorm(LastAxisModule, Norm):
    """A norm over the last axis, which must be the channels: one norm per member.

    Attributes:
        figures: figures per row that autograd keeps.
        called: the rule of modules that call it as a function.
    """

    figures: ClassVar[int]
    called: ClassVar[CalledModule]

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        last = value.channels.axis == len(op.shape) - 1
        shape = op.args[1] if len(op.args) > 1 else (op.shape[-1],)
        if value.channels.axis < len(op.shape) - len(tuple(shape)):
            return value.channels  # within a head, or along positions
        if (
            not last
            or value.channels.inner != 1
            or value.channels.unit != 1
            or len(tuple(shape)) != 1
        ):
            bound(op, value, widths, "normalises over more than the channel axis")
        else:
            self.note(op, value.channels, widths)
        return value.channels

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(reads=True, statistics=self.figures * op.numel // op.shape[-1])

    def note(self, op: Op, channels: Channels, widths: WidthBuilder) -> None:
        """Note the module that ran the norm, or that calls it as a function."""
        called = is_called(op, widths.body(op), widths.module(op))
        if not called or not widths.own_forward(op, self.called, channels):
            widths.per_channel(op, self, channels)
