"""The width graph: walk the operators once, let each rule follow its channel axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from cerewrite.frontend.tracing.classes import Classes
from cerewrite.frontend.tracing.decisions import undecided
from cerewrite.frontend.tracing.free import free_parameter
from cerewrite.frontend.tracing.freeze import UnresolvedLayer, freeze
from cerewrite.frontend.tracing.initial import bias_variance_of, gain_of
from cerewrite.frontend.tracing.modules import ModuleTable
from cerewrite.frontend.tracing.named import NamedSizes
from cerewrite.frontend.tracing.norm_forms import parts_of_norms
from cerewrite.ir import Layer, Op, PerChannel, Rejection, TracedModel
from cerewrite.ops import rule_for
from cerewrite.ops.base import Channels, Value
from cerewrite.ops.modules import (
    ConcatenationLayer,
    Geometry,
    ResizableModule,
    SampledLayer,
)
from cerewrite.runtime.fingerprint import class_name


class Builder:
    """What `cerewrite.ops.base.WidthBuilder` promises, over one traced model."""

    def __init__(self, ops: Sequence[Op], model: nn.Module, frontend: str, batch: int) -> None:
        self.classes = Classes()
        self.found: list[UnresolvedLayer] = []
        self.rejections: list[Rejection] = []
        self._table = ModuleTable(model, ops)
        self._ops = {op.name: op for op in ops}
        self._rung = frontend
        self._batch = batch
        self.values: dict[str, Value] = {}
        self.named = NamedSizes(self.classes, self.values)
        self._tables: list[tuple[str, str]] = []
        self._swapped: set[str] = set()
        self._free: dict[str, int] = {}

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

    def unknown(self, op: Op) -> Rejection:
        """Why an operator without a rule bounds what it reads; noted if no layer may show it."""
        refusal = self._table.unknown(op)
        self.rejections += [refusal] if refusal.code != "unknown-operator" else []
        return refusal

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
            if other.module == op.module and other.target not in ("parameter", "constant")
        )

    def weight(self, op: Op, inputs: Sequence[Value]) -> tuple[int, ...]:
        """Shape of the weight that an operator reads."""
        if len(inputs) > 1:
            return inputs[1].op.shape
        weight = getattr(self.module(op), "weight", None)
        assert isinstance(weight, Tensor), op
        return tuple(weight.shape)

    def layer(
        self, op: Op, rule: SampledLayer, x: Value, *, same_width: bool = False
    ) -> int | None:
        """Note a sampled layer; returns the class that it writes."""
        apart = x.channels is not None and self.is_concatenation(x.channels.width)
        refusal = self._table.refusal(op, rule.modules, forwards=rule.forwards and not apart)
        if apart and refusal is None and not isinstance(rule, ConcatenationLayer):
            refusal = _torn(op, rule.name)
        weight, bias = self._table.weight(op), self._table.bias(op)
        if weight is None:
            why = "is computed in the forward, not kept as a parameter"
            self._unweighed(op, x, "computed-weight", why, "keep the weight in a layer of its own")
            return None
        if not weight.numel():
            self._unweighed(op, x, "no-channels", "is empty", "remove the layer")
            return None
        geometry = rule.geometry(op, x, tuple(weight.shape))
        name = self._layer_name(op)
        source = None if x.channels is None else x.channels.width
        for width in () if source is None else self.classes.resolve(source):
            self.classes.drafts[width].readers.append(name)
        target = source if same_width else self.classes.add(geometry.out_channels, name)
        if same_width and target is not None:
            self._depthwise(op, rule.name, target, geometry, bias is not None)
        if refusal is not None:
            self.rejections.append(refusal)
            for side in {source, target} - {None}:
                assert side is not None
                self.classes.pin(side, refusal)
        layer = Layer(
            name=name,
            op=rule.name,
            node=op.name,
            sources=(),
            target=None,
            in_channels=geometry.in_channels,
            out_channels=geometry.out_channels,
            groups=geometry.groups,
            kernel=geometry.kernel,
            positions=geometry.positions or op.numel // (self._batch * geometry.out_channels),
            bias=bias is not None,
            gain=gain_of(weight, geometry),
            bias_variance=bias_variance_of(bias, geometry),
            frontend=self._rung,
        )
        self.found.append(UnresolvedLayer(layer, source, target))
        return target

    def _unweighed(self, op: Op, x: Value, code: str, reason: str, advice: str) -> None:
        """A layer without weights that could be drawn: it bounds what it reads."""
        refusal = Rejection(
            op.module or op.name, code, f"the weight of '{op.name}' {reason}", advice
        )
        self.rejections.append(refusal)
        if x.channels is not None:
            self.classes.pin(x.channels.width, refusal)

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
        if rule.mixes and self.is_concatenation(channels.width):
            self.classes.pin(channels.width, _apart(op.module, rule.name))
            return
        module = self.module(op)
        assert module is not None, op
        settings = sum(p.numel() for p in module.parameters(recurse=False))
        size = self.classes.size(channels.width)
        found = PerChannel(op.module, rule.name, (), settings // size, least=rule.least)
        self._keep(found, channels.width)

    def free_parameter(self, channels: Channels, value: Value, rank: int) -> bool:
        """Note a free parameter along the channels; False if it is none."""
        own = value.op.target == "parameter"
        owner = value.op.module.rpartition(".")[0] if own else value.op.module
        if owner in self._swapped:
            return True  # it goes with its module
        size = self.classes.size(channels.width)
        axis = channels.axis - rank
        name = free_parameter(value.op, self._ops, self._table, size, axis)
        if name is None or channels.inner != 1 or channels.unit != 1 or self.is_concatenation(channels.width):
            return False
        if name in self._free:  # joined again: the same channels
            self.tie(channels.width, self._free[name], "parameter", value.op.name)
            return True
        self._free[name] = channels.width
        settings = self._table.numel(name) // size
        self._keep(PerChannel(name, "free_parameter", (), settings), channels.width)
        return True

    def keep_targets(self, kept: Mapping[str, Rejection]) -> None:
        """Refuse the classes that some modules' layers write."""
        for found in self.found:
            layer = found.layer.name.partition("@")[0]
            if layer in kept and found.target is not None:
                self.classes.pin(found.target, kept[layer])

    def keep_numbers(self) -> None:
        """Note the attributes that stand for classes, if their modules are not swapped whole."""
        for number, width in self.named.modules():
            if number.name.rpartition(".")[0] not in self._swapped:
                self._keep(number, width)

    def written(self) -> list[str]:
        """Names of what writes a class, in execution order."""
        nodes = {item.layer.node: item.layer.name for item in self.found} | dict(self._tables)
        return [nodes[name] for name in self._ops if name in nodes]

    def table(self, op: Op, rule: ResizableModule, size: int) -> int:
        """Note a table whose rows are so many channels wide; returns the class that it writes."""
        width = self.classes.add(size, op.module)
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
        values = [n for n in reads if self._ops[n].target not in ("parameter", "constant")]
        if module is None or len(values) != 1 or channels.inner != 1 or channels.unit != 1:
            return False
        refusal = self._table.refusal_whole(op, module)
        if refusal is not None or self.is_concatenation(channels.width):
            self.classes.pin(channels.width, refusal or _apart(op.module, rule.name))
            return True
        self._swapped.add(op.module)
        settings = sum(p.numel() for p in module.parameters(recurse=False))
        size = self.classes.size(channels.width)
        self._keep(PerChannel(op.module, rule.name, (), settings // size, least=2), channels.width)
        return True

    def _keep(self, module: PerChannel, width: int) -> None:
        """Note a per-channel module with the first of its classes."""
        widths = self.classes.parts(width)
        self.classes.drafts[self.classes.find(widths[0])].modules.append((module, widths))

    def _depthwise(self, op: Op, rule: str, width: int, geometry: Geometry, bias: bool) -> None:
        flops = 2 * geometry.kernel * (op.numel // (self._batch * geometry.out_channels))
        found = PerChannel(op.module, rule, (), geometry.kernel + int(bias), flops)
        self._keep(found, width)

    def _layer_name(self, op: Op) -> str:
        parameter = next(filter(None, map(self._table.parameter_name, op.inputs)), op.name)
        name = op.module if getattr(self.module(op), "weight", None) is not None else parameter
        taken = {found.layer.name for found in self.found}
        if name not in taken:
            return name
        call = op.call or sum(n == name or n.startswith(f"{name}@") for n in taken)
        return f"{name}@{call}"


def _apart(where: str, name: str) -> Rejection:
    reason = f"'{name}' mixes the channels of a concatenation, in which one member's lie apart"
    advice = "normalise the parts before concatenating them, or use a batch norm"
    return Rejection(where, "norm-over-concatenation", reason, advice)


def _torn(op: Op, name: str) -> Rejection:
    reason = f"'{name}' reads a concatenation, in which one member's channels lie apart"
    advice = "keep these widths, or let its rule be a ConcatenationLayer"
    return Rejection(op.module or op.name, "not-member-wise", reason, advice)


def build_widths(
    ops: Sequence[Op],
    model: nn.Module,
    *,
    frontend: str,
    batch: int,
    fingerprint: str,
    notes: tuple[str, ...] = (),
    kept: Mapping[str, Rejection] | None = None,
) -> TracedModel:
    """Layers and width classes of a traced graph.

    Args:
        ops: operators in execution order.
        model: the traced module.
        frontend: name of the tracer.
        batch: batch size of the trace.
        fingerprint: hash of the model's structure.
        notes: why earlier rungs failed; kept as rejections.
        kept: layers whose output width is kept for what the trace does not see, by module.
    """
    builder = Builder(ops, model, frontend, batch)
    values = builder.values
    unread = parts_of_norms(ops)
    for op in ops:
        inputs = [values[name] for name in op.inputs]
        values[op.name] = Value(op, None if op.name in unread else _channels(op, inputs, builder))
    for width, refusal in undecided(ops, values, builder.classes.resolve):
        builder.classes.pin(width, refusal)
    builder.keep_targets(kept or {})
    builder.keep_numbers()
    layers, widths, names = freeze(builder.found, builder.classes, builder.written())
    skipped = tuple(
        Rejection("", "earlier-rung", note, "nothing to do: a later tracer saw the model")
        for note in notes
    )
    return TracedModel(
        ops=tuple(ops),
        layers=layers,
        widths=widths,
        rejections=skipped + tuple(dict.fromkeys(builder.rejections)),
        params=sum(p.numel() for p in model.parameters()),
        fingerprint=fingerprint,
        frontend=frontend,
        name=class_name(model),
        batch=batch,
        carried={
            name: tuple(names[width] for width in builder.classes.resolve(value.channels.width))
            for name, value in values.items()
            if value.channels is not None
        },
    )


def _channels(op: Op, inputs: list[Value], builder: Builder) -> Channels | None:
    """Ask the rule; an operator without one bounds what it reads."""
    if op.target in ("input", "parameter", "constant", "host_read"):
        return None
    rule = rule_for(op)
    if rule is not None and (inputs or op.target == "output"):
        return rule.channels(op, inputs, builder)
    if op.target == "output":
        why = ("model-output", "it is an output of the model", "keep this width")
        refusal = Rejection(op.module or op.name, *why)
    else:
        refusal = builder.unknown(op)
    for value in inputs:
        if value.channels is not None:
            builder.classes.pin(value.channels.width, refusal)
    return None
