"""What a rule can do with the modules behind its operators: resize them, split them, draw them.

Each ability is a class of its own, beside `cerewrite.ops.base.OpRule`, so that a rule has those
that its family has and no other: a layer norm can be resized, a linear layer split, an activation
neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from cerewrite.ir import Op, RegionLayer
from cerewrite.nn import times_scale
from cerewrite.ops.cases import Case
from cerewrite.ops.resizing import chunk, filter_names, member_bias, member_filters, slice_channels

if TYPE_CHECKING:
    from cerewrite.ops.base import Value

Draw = Callable[[Tensor], Tensor]
"""Draws of the shape, dtype and device of a tensor."""

WHOLE = (0, 1)
"""The one writer, or reader, of a layer that is not divided among members."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Channel counts of a sampled layer.

    Attributes:
        in_channels: channels read.
        out_channels: channels written.
        groups: groups.
        kernel: weights per (input channel, output channel) pair of one group.
        positions: how often each weight is used per example; 0 for once per output position.
    """

    in_channels: int
    out_channels: int
    groups: int
    kernel: int
    positions: int = 0


class ModuleFamily(ABC):
    """Module types that one rule knows.

    Attributes:
        name: registered name, as plans record it.
        modules: exact module types that the rule rebuilds at other sizes.
        forwards: whether it rebuilds subclasses of them with a forward of their own.
        built: further types of the family, such as those that a split or a resize builds.
        axis: channel axis of what the modules read and write.
        cases: tiny modules of the family, for the laws over all rules.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[type[nn.Module], ...]]
    forwards: ClassVar[bool] = False
    built: ClassVar[tuple[type[nn.Module], ...]] = ()
    axis: ClassVar[int] = 1
    cases: ClassVar[tuple[Case, ...]] = ()

    def perturb(self, module: nn.Module, normal: Draw, uniform: Draw) -> None:
        """Move, in place, the settings that are constant in a fresh module and hide mistakes.

        Args:
            module: one of the family, of a copy nobody else uses.
            normal: standard normal draws.
            uniform: draws from [0, 1).
        """
        for parameter in module.parameters(recurse=False):
            perturb_free(parameter, normal)


class ResizableModule(ModuleFamily):
    """A module with one setting per channel (norms, depthwise convolutions, PReLU).

    Attributes:
        least: least width of a member that the module can serve.
        mixes: whether it mixes the channels of one member (layer and group norms): they must lie
            side by side, and an example's own energy is divided out.
        gathers: whether one that mixes can put each member's parts of a concatenation side by side
            (`cerewrite.nn.MemberNorm.gather`).
    """

    least: ClassVar[int] = 1
    mixes: ClassVar[bool] = False
    gathers: ClassVar[bool] = False

    @abstractmethod
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """The module for ``multiplicity`` members of ``width`` channels, acting member by member.

        Per-channel settings that are constant over the channels keep that constant; others
        keep their mean. Dtype, device, ``requires_grad`` and train/eval mode are kept.

        Raises:
            RewriteError: if the module is none of the family, or computes something else.
        """

    @abstractmethod
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        """A narrow copy for member ``index``, from 0, of a resized module."""


class SampledLayer(ModuleFamily):
    """A layer whose weight is drawn at initialisation, ``[out, in / groups, *kernel]``.

    Attributes:
        parted: whether one with a block per member can write several parts side by side.
    """

    parted: ClassVar[bool] = False

    @abstractmethod
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        """Channel counts, from the value read and the weight's shape."""

    def inner(self, layer: RegionLayer) -> int:
        """Elements of one channel along the input's channel axis."""
        return 1

    def level(self, module: nn.Module) -> float:
        """``fan_in`` times the mean square of the weight where no draw moves it; 1 where one does.

        Args:
            module: a layer of the family.
        """
        return 1.0

    def member_weights(self, module: nn.Module, writers: int, readers: int) -> list[list[Tensor]]:
        """The weight of every member's own layer, views ``[out, in / groups, *kernel]``.

        Args:
            module: a layer of an ensemble.
            writers: members among which its output channels are divided; 1 for a plain exit.
            readers: members whose outputs an exit adds; 1 for every other layer.

        Returns:
            One list per writer, with one view per reader.

        Example:
            >>> from cerewrite.ops import sampled_layer
            >>> exit = nn.Linear(6, 2)
            >>> views = sampled_layer("linear").member_weights(exit, 1, 3)
            >>> [[tuple(piece.shape) for piece in row] for row in views]
            [[(2, 2), (2, 2), (2, 2)]]
        """
        return [
            [self.member_weight(module, (i, writers), (j, readers)) for j in range(readers)]
            for i in range(writers)
        ]

    def member_weight(
        self, module: nn.Module, writer: tuple[int, int], reader: tuple[int, int]
    ) -> Tensor:
        """One of `member_weights` alone: which writer and reader, each of how many."""
        return chunk(chunk(module.get_parameter("weight").detach(), 0, *writer), 1, *reader)

    def fan_in(self, module: nn.Module) -> int:
        """Weights that one output unit reads by.

        Example:
            >>> from cerewrite.ops import sampled_layer
            >>> sampled_layer("conv").fan_in(nn.Conv2d(4, 6, 3, groups=2))
            18
        """
        return weight_of(module)[0].numel()

    def multiply_adds(self, module: nn.Module, input: Tensor, output: Tensor) -> int:
        """Multiply-adds of one call."""
        return output.numel() * self.fan_in(module)

    def perturb(self, module: nn.Module, normal: Draw, uniform: Draw) -> None:
        """Weights that are all zero become Gaussian of variance 1 / fan-in; biases move by 0.1.

        Settings per filter move as those of norms do.
        """
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            return
        if not bool(weight.any()):
            weight += normal(weight) * (weight.shape[0] / weight.numel()) ** 0.5
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias += 0.1 * normal(bias)
        for name in filter_names(module):
            perturb_free(module.get_parameter(name), normal)


class SplittableLayer(SampledLayer):
    """A sampled layer that has one block per member inside a region."""

    @abstractmethod
    def split(
        self, module: nn.Module, layer: RegionLayer, multiplicity: int, widths: tuple[int, ...]
    ) -> nn.Module:
        """The layer's module in the ensemble, weights allocated but not yet drawn.

        Args:
            module: the original module.
            layer: its part in the region: entry, interior or exit, and its classes.
            multiplicity: members.
            widths: width of one member per class of the region.

        Raises:
            RewriteError: if the module is none of the family, or has other sizes.
        """

    @abstractmethod
    def narrow(
        self, module: nn.Module, shape: tuple[int, ...], groups: int, *, bias: bool
    ) -> nn.Module:
        """One member's own layer, on the meta device.

        Args:
            module: what `split` returned.
            shape: of its weight, as `member_weights` shows it.
            groups: groups inside the member.
            bias: whether it has a bias.
        """

    def member(
        self,
        module: nn.Module,
        layer: RegionLayer,
        index: int,
        multiplicity: int,
        widths: tuple[int, ...],
    ) -> nn.Module:
        """One member's narrow layer, weights cut from a split module.

        An exit's bias belongs to the sum, so every member but the first gets zeros.

        Args:
            module: what `split` returned.
            layer: its part in the region.
            index: which member, from 0.
            multiplicity: members.
            widths: width of one member per class of the region.
        """
        own = (index, multiplicity)
        ends = (WHOLE, own) if layer.role == "exit" else (own, WHOLE)
        weight = self.member_weight(module, *ends)
        bias = member_bias(getattr(module, "bias", None), layer, index, widths)
        if layer.role == "exit":
            weight = times_scale(weight, module)
        shape = tuple(weight.shape)
        narrow = self.narrow(module, shape, layer.groups, bias=bias is not None)
        further = member_filters(module, layer, index, widths)
        slice_channels(narrow.to(weight.dtype), module, bias=bias, **further)
        self.member_weight(narrow, WHOLE, WHOLE).copy_(weight)
        return narrow


class ConcatenationLayer(SplittableLayer):
    """A splittable layer that may read a concatenation with one block per member."""

    @abstractmethod
    def reordering(self, module: nn.Module, parts: tuple[int, ...]) -> nn.Module:
        """A split layer that puts each member's input side by side first; same parameters.

        Args:
            module: what `split` returned for an interior layer.
            parts: channels of each part, all members together (elements, for a linear layer).
        """

    @abstractmethod
    def plain(self, module: nn.Module) -> nn.Module:
        """What `reordering` was given: the layer on an input that lies member by member."""


def weight_of(module: nn.Module) -> Tensor:
    """A layer's weight, a parametrised one too, which is no parameter."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight


def perturb_free(parameter: Tensor, normal: Draw) -> None:
    """Zeros become standard normal, another constant becomes 1 +- 0.2, in place."""
    if not bool(parameter.any()):
        parameter.add_(normal(parameter))
    elif parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
        parameter.fill_(1).mul_(1 + 0.2 * normal(parameter))
