"""The width graph: walk the operators once, let each rule follow its channel axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from cerewrite.frontend.tracing.decisions import undecided
from cerewrite.frontend.tracing.freeze import UnresolvedLayer, freeze
from cerewrite.frontend.tracing.initial import bias_variance_of, gain_of
from cerewrite.frontend.tracing.norm_forms import parts_of_norms
from cerewrite.frontend.tracing.per_channel import PerChannelBuilder, other_role
from cerewrite.frontend.tracing.unused import unused
from cerewrite.ir import Layer, Op, PerChannel, Rejection, TracedModel
from cerewrite.ops import rule_for
from cerewrite.ops.base import Channels, Value
from cerewrite.ops.layout import pin_named
from cerewrite.ops.modules import (
    ConcatenationLayer,
    Geometry,
    SampledLayer,
)
from cerewrite.ops.own_forwards import filter_settings, has_own_forward
from cerewrite.runtime.fingerprint import class_name


class Builder(PerChannelBuilder):
    """What `cerewrite.ops.base.WidthBuilder` promises, over one traced model."""

    def __init__(self, ops: Sequence[Op], model: nn.Module, frontend: str, batch: int) -> None:
        super().__init__(ops, model)
        self.found: list[UnresolvedLayer] = []
        self.rejections: list[Rejection] = []
        self._frontend = frontend
        self._batch = batch

    def unknown(self, op: Op) -> Rejection:
        """Why an operator without a rule bounds what it reads; noted if no layer may show it."""
        refusal = self._table.unknown(op)
        self.rejections += [refusal] if refusal.code != "unknown-operator" else []
        return refusal

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
        forwards = rule.forwards and (same_width or not apart)
        refusal = self._table.refusal(op, rule.modules, forwards=forwards)
        if apart and refusal is None and not (same_width or isinstance(rule, ConcatenationLayer)):
            refusal = _torn(op, rule.name)
        first = self._first(op)
        if first is not None and refusal is None:
            return self._again(first, op, rule, x)
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
        module = self.module(op)
        settings = 0 if module is None else len(filter_settings(module, geometry.out_channels))
        if same_width and target is not None:
            self._depthwise(op, rule.name, target, geometry, int(bias is not None) + settings)
        if refusal is not None:
            self.rejections.append(refusal)
            others = {first.source, first.target} if first is not None else set()
            for side in {source, target, *others} - {None}:
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
            frontend=self._frontend,
            settings=settings,
        )
        own = module is not None and rule.forwards and has_own_forward(module, rule.modules)
        self.found.append(UnresolvedLayer(layer, source, target, rule.parted and not own))
        return target

    def _first(self, op: Op) -> UnresolvedLayer | None:
        """The layer of a module that has been called before."""
        same = (found for found in self.found if found.layer.name == op.module)
        return next(same, None)

    def _again(self, first: UnresolvedLayer, op: Op, rule: SampledLayer, x: Value) -> int | None:
        """A later call of a layer reads and writes the same classes; returns what it writes."""
        source = None if x.channels is None else x.channels.width
        if first.source is not None and source is not None:
            self.tie(first.source, source, "shared", op.module)
        elif first.source is not None or source is not None:
            self.rejections.append(other_role(op.module))
            for side in {first.source, source, first.target} - {None}:
                assert side is not None
                self.classes.pin(side, self.rejections[-1])
        weight, found = self._table.weight(op), first.layer
        assert weight is not None, op
        geometry = rule.geometry(op, x, tuple(weight.shape))
        positions = geometry.positions or op.numel // (self._batch * geometry.out_channels)
        again = replace(found, positions=found.positions + positions, again=(*found.again, op.name))
        self.found[self.found.index(first)] = replace(first, layer=again)
        if first.target is not None and first.target == first.source:  # one number: depthwise
            own = int(found.bias) + found.settings
            self._depthwise(op, rule.name, first.target, geometry, own)
        return first.target

    def _unweighed(self, op: Op, x: Value, code: str, reason: str, advice: str) -> None:
        """A layer without weights that could be drawn: it bounds what it reads."""
        refusal = Rejection(
            op.module or op.name, code, f"the weight of '{op.name}' {reason}", advice
        )
        self.rejections.append(refusal)
        if x.channels is not None:
            self.classes.pin(x.channels.width, refusal)

    def keep_targets(self, kept: Mapping[str, Rejection]) -> None:
        """Refuse the classes that some modules' layers write."""
        for found in self.found:
            layer = found.layer.name.partition("@")[0]
            if layer in kept and found.target is not None:
                self.classes.pin(found.target, kept[layer])

    def keep_views(self) -> None:
        """Refuse the classes that views of parameters name, which joined nothing of that class."""
        for op in self._later:
            if op.name not in self._parameters.viewed:
                pin_named(op, None, self)

    def written(self) -> list[str]:
        """Names of what writes a class, in execution order."""
        nodes = {item.layer.node: item.layer.name for item in self.found} | dict(self._tables)
        return [nodes[name] for name in self._ops if name in nodes]

    def _depthwise(self, op: Op, rule: str, width: int, geometry: Geometry, own: int) -> None:
        flops = 2 * geometry.kernel * (op.numel // (self._batch * geometry.out_channels))
        found = PerChannel(op.module, rule, (), geometry.kernel + own, flops)
        self._keep(found, width)

    def _layer_name(self, op: Op) -> str:
        parameter = next(filter(None, map(self._table.parameter_name, op.inputs)), op.name)
        name = op.module if getattr(self.module(op), "weight", None) is not None else parameter
        taken = {found.layer.name for found in self.found}
        if name not in taken:
            return name
        call = op.call or sum(n == name or n.startswith(f"{name}@") for n in taken)
        return f"{name}@{call}"


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
    for kept_for in (undecided, unused):
        for width, refusal in kept_for(ops, values, builder.classes.resolve):
            builder.classes.pin(width, refusal)
    builder.keep_targets(kept or {})
    builder.keep_views()
    builder.keep_numbers()
    builder.keep_roles()
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
        axes={name: value.channels.axis for name, value in values.items() if value.channels},
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
