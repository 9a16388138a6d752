"""The width graph: walk the operators once, let each rule follow its channel axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cerewrite.ir import Layer, Op, PerChannel, Rejection, TracedModel, WidthClass
from cerewrite.oprules import rule_for
from cerewrite.oprules.base import Channels, Geometry, ModuleRule, SampledRule, Value
from cerewrite.tracer.modules import ModuleTable

_DEFAULT_GAIN = 1 / 3
"""fan_in * Var[W] of nn.Linear's and nn.Conv's own reset_parameters: uniform, a = sqrt(5)."""


@dataclass(slots=True)
class _Draft:
    """A width class under construction."""

    size: int
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    couplings: set[str] = field(default_factory=set)
    modules: list[PerChannel] = field(default_factory=list)
    pins: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    """A sampled layer with its classes still as numbers."""

    layer: Layer
    source: int | None
    target: int | None


class Builder:
    """What `cerewrite.oprules.base.WidthBuilder` promises, over one traced model."""

    def __init__(self, ops: Sequence[Op], model: nn.Module, rung: str, batch: int) -> None:
        self.drafts: list[_Draft] = []
        self.parents: list[int] = []
        self.found: list[_Found] = []
        self.rejections: list[Rejection] = []
        self._table = ModuleTable(model, ops)
        self._rung = rung
        self._batch = batch

    def find(self, width: int) -> int:
        """The representative of a class."""
        while self.parents[width] != width:
            self.parents[width] = self.parents[self.parents[width]]
            width = self.parents[width]
        return width

    def tie(self, first: int, second: int, coupling: str) -> int:
        """Make two classes one; the earlier one lives on."""
        keep, drop = sorted((self.find(first), self.find(second)))
        kept = self.drafts[keep]
        kept.couplings.add(coupling)
        if keep != drop:
            gone = self.drafts[drop]
            self.parents[drop] = keep
            kept.writers += gone.writers
            kept.readers += gone.readers
            kept.couplings |= gone.couplings
            kept.modules += gone.modules
            kept.pins += gone.pins
        return keep

    def pin(self, width: int, where: str, code: str, reason: str, advice: str) -> None:
        """Refuse to split a class."""
        self.drafts[self.find(width)].pins.append(Rejection(where, code, reason, advice))

    def module(self, op: Op) -> nn.Module | None:
        """The module that ran an operator."""
        return self._table.module(op.module)

    def weight(self, op: Op, inputs: Sequence[Value]) -> tuple[int, ...]:
        """Shape of the weight that an operator reads."""
        if len(inputs) > 1:
            return inputs[1].op.shape
        weight = getattr(self.module(op), "weight", None)
        assert isinstance(weight, Tensor), op
        return tuple(weight.shape)

    def layer(self, op: Op, rule: SampledRule, x: Value, *, same_width: bool = False) -> int | None:
        """Note a sampled layer; returns the class that it writes."""
        refusal = self._table.refusal(op, rule.modules)
        weight, bias = self._tensors(op)
        assert weight is not None, op
        shape = tuple(weight.shape)
        geometry = rule.geometry(op, x, shape)
        name = self._layer_name(op)
        source = None if x.channels is None else self.find(x.channels.width)
        if source is not None:
            self.drafts[source].readers.append(name)
        target = source if same_width else self._fresh(geometry.out_channels, name)
        if same_width and target is not None:
            self._depthwise(op, rule.name, target, geometry, bias is not None)
        if refusal is not None:
            self.rejections.append(refusal)
            for width in {source, target} - {None}:
                assert width is not None
                self.drafts[width].pins.append(refusal)
        layer = Layer(
            name=name,
            op=rule.name,
            node=op.name,
            source=None,
            target=None,
            in_channels=geometry.in_channels,
            out_channels=geometry.out_channels,
            groups=geometry.groups,
            kernel=geometry.kernel,
            positions=op.numel // (self._batch * geometry.out_channels),
            bias=bias is not None,
            gain=_gain(weight, geometry),
            bias_variance=_bias_variance(bias, geometry),
            rung=self._rung,
            swappable=refusal is None,
        )
        self.found.append(_Found(layer, source, target))
        return target

    def per_channel(self, op: Op, rule: ModuleRule, channels: Channels) -> None:
        """Note a norm or another module with one setting per channel."""
        refusal = self._table.refusal(op, rule.modules)
        if refusal is not None:
            self.pin(channels.width, refusal.where, refusal.code, refusal.reason, refusal.advice)
            return
        module = self.module(op)
        assert module is not None, op
        draft = self.drafts[self.find(channels.width)]
        settings = sum(p.numel() for p in module.parameters(recurse=False))
        draft.modules.append(
            PerChannel(op.module, rule.name, "", settings // draft.size, least=rule.least)
        )

    def _depthwise(self, op: Op, rule: str, width: int, geometry: Geometry, bias: bool) -> None:
        positions = op.numel // (self._batch * geometry.out_channels)
        self.drafts[width].modules.append(
            PerChannel(
                op.module,
                rule,
                "",
                params=geometry.kernel + int(bias),
                flops=2 * geometry.kernel * positions,
            )
        )

    def _fresh(self, size: int, writer: str) -> int:
        self.drafts.append(_Draft(size, writers=[writer]))
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def _layer_name(self, op: Op) -> str:
        owned = getattr(self.module(op), "weight", None) is not None
        parameter = next(filter(None, map(self._table.parameter_name, op.inputs)), op.name)
        name = op.module if owned else parameter
        taken = {found.layer.name for found in self.found}
        if name not in taken:
            return name
        call = op.call or sum(n == name or n.startswith(f"{name}@") for n in taken)
        return f"{name}@{call}"

    def _tensors(self, op: Op) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias that an operator reads."""
        nodes = [node for node in op.inputs if self._table.parameter_name(node)]
        if nodes:
            found = [self._table.parameter(node) for node in nodes]
            return found[0], found[1] if len(found) > 1 else None
        module = self.module(op)
        return getattr(module, "weight", None), getattr(module, "bias", None)


def _gain(weight: Tensor, geometry: Geometry) -> float:
    """``fan_in * E[W^2]``, read from the weights or, on meta, from the stock initialisation."""
    if weight.is_meta:
        return _DEFAULT_GAIN
    with torch.no_grad():
        norm = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float32))
    fan_in = geometry.in_channels * geometry.kernel // geometry.groups
    return fan_in * norm * norm / weight.numel()


def _bias_variance(bias: Tensor | None, geometry: Geometry) -> float:
    if bias is None:
        return 0.0
    if bias.is_meta:
        return _DEFAULT_GAIN * geometry.groups / (geometry.in_channels * geometry.kernel)
    return float(bias.detach().double().pow(2).mean())


def build_widths(
    ops: Sequence[Op],
    model: nn.Module,
    *,
    rung: str,
    batch: int,
    fingerprint: str,
    notes: tuple[str, ...] = (),
) -> TracedModel:
    """Layers and width classes of a traced graph.

    Args:
        ops: operators in execution order.
        model: the traced module.
        rung: name of the tracer.
        batch: batch size of the trace.
        fingerprint: hash of the model's structure.
        notes: why earlier rungs failed; kept as rejections.
    """
    builder = Builder(ops, model, rung, batch)
    values: dict[str, Value] = {}
    for op in ops:
        inputs = [values[name] for name in op.inputs]
        values[op.name] = Value(op, _channels(op, inputs, builder))
    widths, names = _finish(builder)
    layers = tuple(_named(found, names, builder) for found in builder.found)
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
        rung=rung,
        name=type(model).__name__,
        batch=batch,
    )


def _channels(op: Op, inputs: list[Value], builder: Builder) -> Channels | None:
    """Ask the rule; an operator without one bounds what it reads."""
    if op.target in ("input", "parameter", "constant"):
        return None
    rule = rule_for(op)
    if rule is not None and (inputs or op.target == "output"):
        return rule.channels(op, inputs, builder)
    for value in inputs:
        if value.channels is not None:
            code, what = (
                ("model-output", "it is an output of the model")
                if op.target == "output"
                else ("unknown-operator", f"no rule knows the operator '{op.target}'")
            )
            builder.pin(
                value.channels.width,
                op.module or op.name,
                code,
                what,
                "keep this width" if op.target == "output" else "register a rule for it",
            )
    return None


def _finish(builder: Builder) -> tuple[tuple[WidthClass, ...], dict[int, str]]:
    """Name the classes after their first writers and freeze them."""
    roots = [i for i in range(len(builder.parents)) if builder.find(i) == i]
    order = {found.layer.name: i for i, found in enumerate(builder.found)}
    names = {i: min(builder.drafts[i].writers, key=order.__getitem__) for i in roots}
    frozen = []
    for i in roots:
        draft = builder.drafts[i]
        modules = tuple(replace(module, width=names[i]) for module in draft.modules)
        frozen.append(
            WidthClass(
                name=names[i],
                size=draft.size,
                writers=tuple(sorted(draft.writers, key=order.__getitem__)),
                readers=tuple(sorted(draft.readers, key=order.__getitem__)),
                couplings=tuple(sorted(draft.couplings)),
                modules=modules,
                pins=tuple(dict.fromkeys(draft.pins)),
            )
        )
    return tuple(frozen), names


def _named(found: _Found, names: dict[int, str], builder: Builder) -> Layer:
    source = None if found.source is None else names[builder.find(found.source)]
    target = None if found.target is None else names[builder.find(found.target)]
    return replace(found.layer, source=source, target=target)
