"""Per-channel modules, tables and numbers in the width graph, and what rules ask of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from cerewrite.frontend.tracing.classes import Classes
from cerewrite.frontend.tracing.free import FreeParameters
from cerewrite.frontend.tracing.modules import ModuleTable
from cerewrite.frontend.tracing.named import NamedSizes
from cerewrite.frontend.tracing.numbers import MET, USED
from cerewrite.ir import Length, Op, PerChannel, Rejection
from cerewrite.ir.lengths import HELD
from cerewrite.ops.base import Channels, Value
from cerewrite.ops.free import free_rule
from cerewrite.ops.layout import pin_named
from cerewrite.ops.modules import ResizableModule
from cerewrite.ops.weighing import FUSED, PRODUCTS

_HELD = ("parameter", "constant")

_REDUCING = frozenset({"sum", "mean", "softmax", "_softmax"})


class PerChannelBuilder:
    """The part of `cerewrite.ops.base.WidthBuilder` without sampled layers.

    Args:
        ops: operators in execution order.
        model: the traced module.

    Attributes:
        classes: the width classes under construction.
        values: the values so far, by name.
        named: the numbers that stand for classes.
    """

    def __init__(self, ops: Sequence[Op], model: nn.Module) -> None:
        self.classes = Classes()
        self.values: dict[str, Value] = {}
        used = [op.module for op in ops if op.target == "constant" and op.args == (USED,)]
        self.named = NamedSizes(self.classes, self.values, used)
        self._table = ModuleTable(model, ops)
        self._ops = {op.name: op for op in ops}
        self._parameters = FreeParameters(self._ops, self._table, self.named)
        self._tables: list[tuple[str, str]] = []
        self._swapped: set[str] = set()
        self._free: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._kept: set[str] = set()
        self._noted: dict[str, set[int]] = {}
        self._later: list[Op] = []

    def tie(self, first: int, second: int, coupling: str, where: str) -> int:
        """Make two classes one."""
        return self.classes.tie(first, second, coupling, where)

    def concatenate(self, parts: Sequence[int]) -> int:
        """Set classes side by side."""
        return self.classes.concatenate(parts)

    def is_concatenation(self, width: int) -> bool:
        """Whether a number stands for several classes side by side."""
        return len(self.classes.resolve(width)) > 1

    def pin(self, width: int, where: str, code: str, reason: str, advice: str) -> None:
        """Refuse to split a class."""
        self.classes.pin(width, Rejection(where, code, reason, advice))

    def module(self, op: Op) -> nn.Module | None:
        """The module that ran an operator."""
        return self._table.module(op.module)

    def read_off(self, size: object) -> list[int]:
        """The classes that a number is made of."""
        return self.named.widths(size)

    def stays(self, size: object) -> bool:
        """Whether a number is the same for members of any width."""
        return self.named.stays(size)

    def grows(self, size: object, width: int, where: str) -> bool:
        """Whether a number grows as a class does."""
        return self.named.grows(size, width, where)

    def is_reduced(self, op: Op, axis: int) -> bool:
        """Whether something that reads a value sums, or weighs by a softmax, over an axis."""
        for reader in self._ops.values():
            if reader.target in _REDUCING and reader.inputs[:1] == (op.name,):
                given = reader.args[1] if len(reader.args) > 1 else (reader.kwargs or {}).get("dim")
                axes = given if isinstance(given, list | tuple) else [given]
                if any(isinstance(dim, int) and dim % len(op.shape) == axis for dim in axes):
                    return True
        return False

    def is_multiplied(self, op: Op) -> bool:
        """Whether what a value becomes meets another in a product, in the same module."""
        after = {op.name}
        for other in self.body(op):
            if after.intersection(other.inputs):
                after.add(other.name)
                if other.target in FUSED | PRODUCTS and len(other.inputs) > 1:
                    return True
        return False

    def divide(self, width: int, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """Make a class several side by side; None where something has read it as a whole."""
        return self.classes.divide(width, sizes)

    def fraction(self, width: int, parts: int) -> int:
        """A number for one of some equal parts of every channel."""
        return self.classes.fraction(width, parts)

    def size(self, width: int) -> int:
        """Elements along the axis of a number."""
        return self.classes.size(width)

    def step(self, width: int, elements: int) -> None:
        """Let members own multiples of so many elements."""
        self.classes.step(width, elements)

    def body(self, op: Op) -> tuple[Op, ...]:
        """What the module that ran an operator runs in all, in order, parameters left out."""
        return tuple(
            other
            for other in self._ops.values()
            if (other.module, other.call) == (op.module, op.call) and other.target not in _HELD
        )

    def per_channel(
        self,
        op: Op,
        rule: ResizableModule,
        channels: Channels,
        *,
        types: tuple[type[nn.Module], ...] | None = None,
    ) -> None:
        """Note a norm or another module with one setting per channel."""
        refusal = self._table.refusal(
            op, types or rule.modules, once=types is None, forwards=rule.forwards
        )
        if refusal is not None:
            self.classes.pin(channels.width, refusal)
            return
        if rule.mixes and not rule.gathers and self.is_concatenation(channels.width):
            self.classes.pin(channels.width, _apart(op.module, rule.name))
            return
        module = self.module(op)
        assert module is not None, op
        settings = sum(p.numel() for p in module.parameters(recurse=False))
        size = self.classes.size(channels.width)
        found = PerChannel(op.module, rule.name, (), settings // size, least=rule.least)
        self._noted.setdefault(op.module, set()).add(op.call)
        self._keep(found, channels.width)

    def free_parameter(self, channels: Channels, value: Value, rank: int) -> bool:
        """Note a free parameter along the channels; False if it is none."""
        own = value.op.target == "parameter"
        owner = value.op.module.rpartition(".")[0] if own else value.op.module
        if owner in self._swapped:
            return True  # it goes with its module
        if channels.inner != 1 or self.is_concatenation(channels.width):
            return False
        width, size = channels.width, self.classes.size(channels.width) // channels.unit
        found = self._parameters.behind(value.op, size, channels.axis - rank, width)
        rules = {name: free_rule(self._table.shape(name), axis) for name, axis in found}
        if None in rules.values() or not rules:
            return False
        if channels.unit != 1:  # one value per head
            width = self.fraction(width, channels.unit)
        for name, rule in rules.items():
            if name in self._free:  # joined again: the same channels
                self.tie(width, self._free[name], "parameter", value.op.name)
                continue
            self._free[name] = width
            assert rule is not None, name
            settings = self._table.numel(name) // size
            self._keep(PerChannel(name, rule, (), settings), width)
        return bool(rules)

    def later(self, op: Op) -> bool:
        """Whether a view shows parameters alone, and is judged by what its value joins."""
        found = self._parameters.is_view(op)
        self._later += [op] if found else []
        return found

    def keep_views(self) -> None:
        """Refuse the classes that views of parameters name, which joined nothing of that class."""
        for op in self._later:
            if op.name not in self._parameters.viewed:
                pin_named(op, None, self)

    def keep_numbers(self) -> None:
        """Note the attributes that stand for classes, if their modules are not swapped whole.

        An attribute that the forward compared with a width stands for it, or keeps it.
        """
        for op in self._ops.values():
            if op.target != "constant" or op.args[:1] != (MET,) or op.args[1] not in self.values:
                continue
            found = self.values[op.args[1]].channels
            if found is None or found.axis != op.args[2]:
                continue
            size = Length(self.classes.size(found.width), [(op.module, HELD)])
            if not self.named.grows(size, found.width, op.module):
                reason = f"the forward compares it with '{op.module}', which it computes with"
                self.pin(found.width, op.module, "compared", reason, "leave the comparison out")
        for number, width in self.named.modules():
            if number.name.rpartition(".")[0] not in self._swapped:
                self._keep(number, width)

    def table(self, op: Op, rule: ResizableModule, size: int) -> int:
        """Note a table whose rows are so many channels wide; returns the class that it writes."""
        if op.module in self._rows:  # called before
            self._noted.setdefault(op.module, set()).add(op.call)
            return self._rows[op.module]
        self._rows[op.module] = width = self.classes.add(size, op.module)
        self._tables.append((op.name, op.module))
        self.per_channel(op, rule, Channels(len(op.shape) - 1, width))
        return width

    def rows(self, op: Op, parameter: Op, rule: ResizableModule) -> int | None:
        """Note a parameter of which an operator picks rows; the class of its columns, if any."""
        if not self._table.is_standalone(parameter.name):
            return None
        if isinstance(self.module(op), rule.modules):
            return self.table(op, rule, op.shape[-1])
        name = self._table.parameter_name(parameter.name)
        assert name is not None, parameter
        width = self.classes.add(op.shape[-1], name)
        self._tables.append((op.name, name))
        self._keep(PerChannel(name, "free_parameter", (), parameter.shape[0]), width)
        return width

    def own_forward(self, op: Op, rule: ResizableModule, channels: Channels) -> bool:
        """Note a module that does one thing along the channels of what it reads; False if none."""
        module = self.module(op)
        body = self.body(op)
        reads = {name for other in body for name in other.inputs} - {y.name for y in body}
        values = [n for n in reads if self._ops[n].target not in _HELD]
        if module is None or len(values) != 1 or channels.inner != 1 or channels.unit != 1:
            return False
        if not self._then(op.module, module):
            return False
        refusal = self._table.refusal_whole(op, module)
        if refusal is not None or self.is_concatenation(channels.width):
            self.classes.pin(channels.width, refusal or _apart(op.module, rule.name))
            return True
        self._swapped.add(op.module)
        self._noted.setdefault(op.module, set()).add(op.call)
        settings = sum(p.numel() for p in module.parameters(recurse=False))
        size = self.classes.size(channels.width)
        self._keep(PerChannel(op.module, rule.name, (), settings // size, least=2), channels.width)
        return True

    def _then(self, name: str, module: nn.Module) -> bool:
        """Whether a module's children are called in order, unit by unit, on what it has done."""
        prefix = f"{name}."
        own = [op for op in self._ops.values() if f"{op.module}.".startswith(prefix)]
        inner = [op for op in own if op.module != name and op.target not in _HELD]
        known = {op.name for op in own}
        called = list(dict.fromkeys(op.module.removeprefix(prefix) for op in inner))
        return called == [child for child in module._modules if child in called] and all(
            (op.function is not None or op.target in ("identity", "dropout"))
            and known.issuperset(op.inputs)
            for op in inner
        )

    def keep_roles(self) -> None:
        """Refuse the classes of modules that are called on other values too."""
        for draft in self.classes.drafts:
            for module, widths in draft.modules:
                calls = self._noted.get(module.name)
                if calls is not None and len(calls) < self._table.runs(module.name):
                    for width in widths:
                        self.classes.pin(width, other_role(module.name))

    def _keep(self, module: PerChannel, width: int) -> None:
        """Note a per-channel module with the first of its classes; once for all of its calls."""
        if module.name in self._kept:
            self._keep_again(module, width)
            return
        self._kept.add(module.name)
        widths = self.classes.parts(width)
        self.classes.drafts[self.classes.find(widths[0])].modules.append((module, widths))

    def _keep_again(self, module: PerChannel, width: int) -> None:
        """Tie the classes of a later call to those of the first."""
        for draft in self.classes.drafts:
            for at, (known, widths) in enumerate(draft.modules):
                if known.name == module.name:
                    draft.modules[at] = replace(known, flops=known.flops + module.flops), widths
                    first = widths[0] if len(widths) == 1 else self.concatenate(widths)
                    self.tie(first, width, "shared", module.name)
                    return


def other_role(where: str) -> Rejection:
    """Why a module keeps its width that other calls put on values of a fixed one."""
    reason = "the module is called on this width and on one that is not followed"
    return Rejection(where, "shared", reason, "use one module per call")


def _apart(where: str, name: str) -> Rejection:
    reason = f"'{name}' mixes the channels of a concatenation, in which one member's lie apart"
    advice = "normalise the parts before concatenating them, or use a batch norm"
    return Rejection(where, "norm-over-concatenation", reason, advice)
