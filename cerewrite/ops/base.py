"""What a rule says about one operator family, and where rules are registered.

A rule answers these questions about an operator of the traced graph:

* `OpRule.channels`: which axis of its output carries which width class, and what it ties;
* `OpRule.moments`: how mean square and tangent kernel pass through it (docs/theory.md, section 5);
* `OpRule.saved`: what autograd keeps of it;
* for operators backed by a module with a channel count (`ModuleRule`, `LayerRule`): what that
  module becomes when its width is split into members, and what one member of it is
  (`cerewrite.ops.modules`).

An operator without a rule bounds every region it touches; it is never guessed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import isfunction
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Op
from cerewrite.ops.cases import Case
from cerewrite.ops.modules import (
    ModuleFamily,
    ResizableModule,
    SampledLayer,
    SplittableLayer,
)
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
        unit: channels per element along the axis (above 1 where the axis counts heads).
    """

    axis: int
    width: int
    inner: int = 1
    unit: int = 1

    def at(self, axis: int) -> Channels:
        """The same channels on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True, slots=True)
class Value:
    """A value as a rule sees it: its operator and its channel axis (None if it has none)."""

    op: Op
    channels: Channels | None

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter, a buffer or a constant: nothing computed from an input."""
        return self.op.target in ("parameter", "constant")


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

    def layer(
        self, op: Op, rule: SampledLayer, x: Value, *, same_width: bool = False
    ) -> int | None:
        """Note a sampled layer; returns the width class that it writes, None if unknown."""

    def per_channel(
        self,
        op: Op,
        rule: ResizableModule,
        channels: Channels,
        *,
        types: tuple[type[nn.Module], ...] | None = None,
    ) -> None:
        """Note a module with one setting per channel of a class; its type is one of ``types``.

        Without ``types``, it is one of the rule's own.
        """

    def read_off(self, size: object) -> list[int]:
        """The classes whose sizes a number is made of, as far as the trace saw them."""

    def stays(self, size: object) -> bool:
        """Whether a number that a forward names is the same for members of any width."""

    def grows(self, size: object, width: int, where: str) -> bool:
        """Whether a number that a forward names grows as a class does.

        An attribute of a module may come to stand for the class, and is set when it is split.
        """

    def is_reduced(self, op: Op, axis: int) -> bool:
        """Whether something that reads a value sums over one of its axes: it holds branches."""

    def is_multiplied(self, op: Op) -> bool:
        """Whether what a value becomes meets another in a product, in the same module."""

    def divide(self, width: int, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """Make a class several side by side, of so many elements; None where it cannot be."""

    def fraction(self, width: int, parts: int) -> int:
        """A number for one of some equal parts of every channel of a class."""

    def size(self, width: int) -> int:
        """Channels of a class, as often as a number takes it."""

    def step(self, width: int, elements: int) -> None:
        """Let members own multiples of so many elements of a class: whole heads."""

    def table(self, op: Op, rule: ResizableModule, size: int) -> int:
        """Note a table of entries so many channels wide; returns the class that it writes."""

    def rows(self, op: Op, parameter: Op, rule: ResizableModule) -> int | None:
        """Note a parameter ``[rows, channels]`` of which an operator picks rows.

        Args:
            op: the operator.
            parameter: what it reads.
            rule: of modules that hold such a table.

        Returns:
            The class of its columns; None where others read it too.
        """

    def own_forward(self, op: Op, rule: ResizableModule, channels: Channels) -> bool:
        """Note that the module that ran an operator does it, and no more, along its channels.

        Returns False where it does something else too, so that the class is to be pinned.
        """

    def body(self, op: Op) -> tuple[Op, ...]:
        """What the module that ran an operator runs in all, in order, parameters left out."""

    def free_parameter(self, channels: Channels, value: Value, rank: int) -> bool:
        """Note a free parameter along the channels of a value of so many axes; False if none."""

    def later(self, op: Op) -> bool:
        """Whether a view shows parameters alone: what joins its value says if its sizes grow."""

    def weight(self, op: Op, inputs: Sequence[Value]) -> tuple[int, ...]:
        """Shape of the weight that an operator reads."""

    def module(self, op: Op) -> nn.Module | None:
        """The module that ran an operator; None for calls from the model's own forward."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What autograd keeps of one operator for its backward pass.

    Attributes:
        shares: whether the output shares the storage of the first value read.
        reads: whether it keeps what it reads.
        output: whether it keeps what it writes.
        own: elements that it keeps besides: a mask, a factor, the normalised input.
        indices: indices that it keeps, of `INDEX` bytes.
        statistics: figures that a norm keeps, once for every member in a split.
        split: elements that only what takes its place in a split keeps.
    """

    shares: bool = False
    reads: bool = False
    output: bool = False
    own: int = 0
    indices: int = 0
    statistics: int = 0
    split: int = 0


class OpRule(ABC):
    """One operator family: every fact about it in one place.

    Attributes:
        name: registered name.
        targets: canonical operator names it covers.
        whole: exact module types that are one operator of this family, whatever their forward
            is made of: users' own modules.
        leaves: operators that stock modules are, by exact type, for tracers that do not enter them.
        keeps: what autograd keeps of every operator of the family.
        cases: tiny modules whose forward is its operators, for the laws over all rules.
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]
    whole: ClassVar[tuple[type[nn.Module], ...]] = ()
    leaves: ClassVar[tuple[tuple[type[nn.Module], str], ...]] = ()
    keeps: ClassVar[Saved] = Saved(output=True)
    cases: ClassVar[tuple[Case, ...]] = ()

    @abstractmethod
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        """The channel axis of the output; None when it has none that can be followed."""

    @abstractmethod
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        """Mean square and tangent kernel of the output (docs/theory.md, section 5)."""

    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """What autograd keeps of an operator of this family; `keeps` where all are alike.

        Args:
            op: the operator.
            module: the module that ran it; None for the model itself.

        References:
            PyTorch, tools/autograd/derivatives.yaml: which tensors each backward reads.
        """
        return self.keeps


class ModuleRule(OpRule, ResizableModule):
    """An operator whose module holds one setting per channel and can be resized."""


class LayerRule(OpRule, SplittableLayer):
    """An operator whose module is a sampled layer and can be split: linear, convolution."""

    keeps = Saved(reads=True)


OPRULES: Registry[OpRule] = Registry("operator", "cerewrite.ops", "cerewrite.operators")
"""Rules that follow operators."""
FAMILIES: Registry[ModuleFamily] = Registry("operator", "cerewrite.ops", "cerewrite.operators")
"""Rules that rebuild modules; many are both."""


TARGETS: dict[str, OpRule] = {}
"""The rule of every operator name; filled by `register`."""

R = TypeVar("R", bound=OpRule | ModuleFamily)


def register(kind: type[R]) -> type[R]:
    """Class decorator: make one instance of a rule known under its name.

    A file that is loaded again replaces its own rule.

    Raises:
        UsageError: if another file has registered that name, or one of the operators.
    """
    rule = kind()
    for target in rule.targets if isinstance(rule, OpRule) else ():
        owner = TARGETS.get(target)
        if owner is not None and owner.name != rule.name:
            raise UsageError(
                f"the operator '{target}' belongs to the rule '{owner.name}'",
                advice="leave it out of the new rule's targets",
            )
    if isinstance(rule, OpRule):
        _enter(OPRULES, rule.name, rule)
        TARGETS.update(dict.fromkeys(rule.targets, rule))
    if isinstance(rule, ModuleFamily):
        _enter(FAMILIES, rule.name, rule)
    return kind


def _enter(registry: Registry[Any], name: str, rule: object) -> None:
    known = registry.known(name)
    if known is not None and _place(type(known)) == _place(type(rule)):
        registry.replace(name, rule)
    else:
        registry.register(name, rule)


def _place(kind: type) -> tuple[str, str]:
    """Where a rule is written, whatever the name its file was loaded under."""
    own = (item.__code__.co_filename for item in vars(kind).values() if isfunction(item))
    return next(own, kind.__module__), kind.__qualname__
