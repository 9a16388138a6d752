"""What a rule says about one operator family, and where rules are registered.

A rule answers three questions about an operator of the traced graph:

* `OpRule.channels`: which axis of its output carries which width class, and what it ties;
* `OpRule.moments`: how mean square and tangent kernel pass through it (docs/theory.md, section 5);
* for operators backed by a module with a channel count (`ModuleRule`, `LayerRule`): what that
  module becomes when its width is split into members, and what one member of it is.

An operator without a rule bounds every region it touches; it is never guessed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Op, RegionLayer
from cerewrite.registry import Registry

if TYPE_CHECKING:
    from cerewrite.kernel.moments import MomentContext
    from cerewrite.kernel.values import Moments


@dataclass(frozen=True, slots=True)
class Channels:
    """The channel axis of a value.

    Attributes:
        axis: which axis of the tensor.
        width: the width class that the axis carries.
        inner: elements per channel along the axis, channel-major (above 1 after a flatten).
    """

    axis: int
    width: int
    inner: int = 1


@dataclass(frozen=True, slots=True)
class Value:
    """A value as a rule sees it: its operator and its channel axis (None if it has none)."""

    op: Op
    channels: Channels | None

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter, a buffer or a constant: nothing computed from an input."""
        return self.op.target in ("parameter", "constant")


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


class WidthBuilder(Protocol):
    """What a rule may do to the width graph while the tracer walks the operators."""

    def tie(self, first: int, second: int, coupling: str, where: str) -> int:
        """Make two classes one, because ``coupling`` at ``where`` needs them equal.

        Returns the class. Concatenations are tied part by part where their parts agree, and
        pinned where they do not.
        """

    def concatenate(self, parts: Sequence[int]) -> int:
        """Set classes side by side on one axis; returns a number for all of them."""

    def is_concatenation(self, width: int) -> bool:
        """Whether a number stands for several classes side by side."""

    def pin(self, width: int, where: str, code: str, reason: str, advice: str) -> None:
        """Refuse to split a class, with the reason and the remedy."""

    def layer(self, op: Op, rule: SampledRule, x: Value, *, same_width: bool = False) -> int | None:
        """Note a sampled layer; returns the width class that it writes, None if unknown."""

    def per_channel(
        self,
        op: Op,
        rule: ModuleRule,
        channels: Channels,
        *,
        types: tuple[type[nn.Module], ...] | None = None,
    ) -> None:
        """Note a module with one setting per channel of a class; its type is one of ``types``.

        Without ``types``, it is one of the rule's own.
        """

    def read_off(self, size: object) -> list[Channels]:
        """The channel axes whose lengths a number is made of, as far as the trace saw them."""

    def body(self, op: Op) -> tuple[Op, ...]:
        """What the module that ran an operator runs in all, in order, parameters left out."""

    def free_parameter(self, channels: Channels, value: Value, rank: int) -> bool:
        """Note a free parameter along the channels of a value of so many axes; False if none."""

    def weight(self, op: Op, inputs: Sequence[Value]) -> tuple[int, ...]:
        """Shape of the weight that an operator reads."""

    def module(self, op: Op) -> nn.Module | None:
        """The module that ran an operator; None for calls from the model's own forward."""


class SampledRule(Protocol):
    """A rule whose operator draws weights at initialisation."""

    @property
    def name(self) -> str:
        """Registered name."""

    @property
    def modules(self) -> tuple[type[nn.Module], ...]:
        """Exact module types that the rewrite can rebuild."""

    @property
    def forwards(self) -> bool:
        """Whether it can rebuild subclasses of them with a forward of their own."""

    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        """Channel counts, from the value read and the weight's shape."""


class OpRule(ABC):
    """One operator family: every fact about it in one place.

    Attributes:
        name: registered name.
        targets: canonical operator names it covers.
        whole: exact module types that are one operator of this family, whatever their forward
            is made of: users' own modules.
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]
    whole: ClassVar[tuple[type[nn.Module], ...]] = ()

    @abstractmethod
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        """The channel axis of the output; None when it has none that can be followed."""

    @abstractmethod
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        """Mean square and tangent kernel of the output (docs/theory.md, section 5)."""


class ModuleRule(OpRule):
    """An operator whose module holds one setting per channel (norms, depthwise convs, PReLU).

    Attributes:
        modules: exact module types that it can resize.
        least: least width of a member that the module can serve.
        mixes: whether it mixes the channels of one member (layer and group norms), so that
            they must lie side by side.
        forwards: whether it can resize subclasses of them with a forward of their own.
    """

    modules: ClassVar[tuple[type[nn.Module], ...]]
    forwards: ClassVar[bool] = False
    least: ClassVar[int] = 1
    mixes: ClassVar[bool] = False

    @abstractmethod
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """The module for ``multiplicity`` members of ``width`` channels, acting member by member.

        Per-channel settings that are constant over the channels keep that constant; others
        keep their mean. Dtype, device, ``requires_grad`` and train/eval mode are kept.
        """

    @abstractmethod
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        """A narrow copy for one member of a resized module (the membership law uses it)."""


class LayerRule(OpRule):
    """A sampled layer: linear or convolution.

    Attributes:
        modules: exact module types whose layers it can split.
        forwards: whether it can split subclasses of them with a forward of their own.
    """

    modules: ClassVar[tuple[type[nn.Module], ...]]
    forwards: ClassVar[bool] = False

    @abstractmethod
    def geometry(self, op: Op, x: Value, weight: tuple[int, ...]) -> Geometry:
        """Channel counts, from the value read and the weight's shape."""

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
        """

    @abstractmethod
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
        """


OPRULES: Registry[OpRule] = Registry("operator", "cerewrite.ops", "cerewrite.operators")


TARGETS: dict[str, OpRule] = {}
"""The rule of every operator name; filled by `register`."""

R = TypeVar("R", bound=OpRule)


def register(rule: type[R]) -> type[R]:
    """Class decorator: make one instance of a rule known under its name.

    A file that is loaded again replaces its own rule.

    Raises:
        UsageError: if another file has registered that name, or one of the operators.
    """
    known = OPRULES.known(rule.name)
    for target in rule.targets:
        owner = TARGETS.get(target)
        if owner is not None and owner.name != rule.name:
            raise UsageError(
                f"the operator '{target}' belongs to the rule '{owner.name}'",
                advice="leave it out of the new rule's targets",
            )
    instance = rule()
    if known is not None and _place(type(known)) == _place(rule):
        OPRULES.replace(rule.name, instance)
    else:
        OPRULES.register(rule.name, instance)
    TARGETS.update(dict.fromkeys(rule.targets, instance))
    return rule


def _place(rule: type[OpRule]) -> tuple[str, str]:
    """Where a rule is written, whatever the name its file was loaded under."""
    return rule.channels.__code__.co_filename, rule.__qualname__
