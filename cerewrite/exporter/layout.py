"""Members first: block-diagonal linears hand ``[m, rows, n]`` on without turning it back.

A block-diagonal linear reads and writes ``[..., m * n]``, so torch puts a transpose and a reshape
before and after each of them. Between two of them only pointwise work is done, to which the order
of the axes means nothing. `keep_members_first` finds the connected parts of the graph where that
holds, lets them work on ``[m, rows, n]``, and converts only what leaves such a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir
from onnx_ir import Node, Value

from cerewrite.exporter.forms import SWAP, Form, form_of, raw_constants, root_of, swaps, whole


@dataclass(slots=True)
class Part:
    """A connected part of the graph whose values can all be held as ``[m, rows, n]``.

    Attributes:
        seeds: transposes that enter it from ``[m, rows, n]``.
        inner: nodes that work on either layout, in graph order.
        sinks: transposes that leave it to ``[m, rows, n]``.
    """

    seeds: list[Node] = field(default_factory=list)
    inner: list[Node] = field(default_factory=list)
    sinks: list[Node] = field(default_factory=list)

    def values(self) -> Iterator[Value]:
        """What is computed inside, in graph order."""
        for node in (*self.seeds, *self.inner):
            yield node.outputs[0]

    def exits(self) -> list[Value]:
        """Values that something outside reads."""
        mine = {*self.inner, *self.sinks}
        return [v for v in self.values() if any(user not in mine for user in v.consumers())]


def keep_members_first(graph: onnx_ir.Graph) -> int:
    """Remove transposes between block-diagonal linears, in place.

    A part is rewritten only if fewer transposes remain.

    Args:
        graph: a graph with the shapes of its values.

    Returns:
        How many transposes are gone.
    """
    forms: dict[Value, Form] = {}
    roots: dict[Value, Value] = {}
    gone = 0
    for part in _parts(graph, forms, roots):
        before, exits = len(part.seeds) + len(part.sinks), part.exits()
        if len(exits) < before and all(_turnable(forms[value]) for value in exits):
            _rewrite(graph, part, forms, roots, exits)
            gone += before - len(exits)
    for name in [n for n, v in graph.initializers.items() if not v.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]
    return gone


def _parts(graph: onnx_ir.Graph, forms: dict[Value, Form], roots: dict[Value, Value]) -> list[Part]:
    """All parts, found in one walk in topological order.

    A value that is turned anyway, for a block-diagonal linear, is a root: what reads it may read
    the turned one.
    """
    part_of: dict[Value, Part] = {}
    found: list[Part] = []
    for node in graph:
        known = list(dict.fromkeys(v for v in node.inputs if v is not None and v in forms))
        if any(value.is_graph_output() for value in node.outputs):
            continue
        if known and swaps(node) and forms[known[0]].split and len(forms[known[0]].shape) == 3:
            part_of[known[0]].sinks.append(node)
            continue
        form = form_of(node, forms)
        if form is None:
            if root := root_of(node):
                forms[root[0]] = root[1]
                roots[root[0]] = node.outputs[0]
            continue
        part = Part()
        for other in dict.fromkeys(id(part_of[value]) for value in known if value in part_of):
            part = _merged(part, next(p for p in found if id(p) == other), found, part_of)
        found.append(part)
        (part.inner if known else part.seeds).append(node)
        forms[node.outputs[0]] = form
        part_of[node.outputs[0]] = part
    return found


def _merged(first: Part, second: Part, found: list[Part], part_of: dict[Value, Part]) -> Part:
    found.remove(second)
    for value in second.values():
        part_of[value] = first
    first.seeds += second.seeds
    first.inner += second.inner
    first.sinks += second.sinks
    return first


def _turnable(form: Form) -> bool:
    """Whether the user's shape can be written down: one open axis, or a shape that is kept."""
    return sum(not isinstance(axis, int) for axis in form.shape) <= 1 or form.source is not None


def _rewrite(
    graph: onnx_ir.Graph,
    part: Part,
    forms: dict[Value, Form],
    roots: dict[Value, Value],
    exits: list[Value],
) -> None:
    """Let a part work on ``[m, rows, n]``; convert what leaves it."""
    order = {node: index for index, node in enumerate(graph)}
    inner = sorted(part.inner, key=order.__getitem__)
    mine = {*part.inner, *part.sinks}
    outside = {v: [u for u in v.uses() if u.node not in mine] for v in exits}
    raw = dict(roots)
    for seed in part.seeds:
        source = seed.inputs[0]
        assert source is not None
        raw[seed.outputs[0]] = source
    for node in inner:
        value = node.outputs[0]
        if node.op_type == "Reshape":
            source = node.inputs[0]
            assert source is not None
            raw[value] = raw[source]
            continue
        raw_constants(graph, node, forms)
        for index, operand in enumerate(node.inputs):
            if operand in raw:
                assert operand is not None
                node.replace_input_with(index, raw[operand])
        value.shape = onnx_ir.Shape(forms[value].raw)
        raw[value] = value
    for value, uses in outside.items():
        turned = _turn(graph, value, raw[value], forms[value])
        for user, index in uses:
            user.replace_input_with(index, turned)
    for sink in part.sinks:
        operand = sink.inputs[0]
        assert operand is not None
        sink.outputs[0].replace_all_uses_with(raw[operand])
    reshapes = [node for node in inner if node.op_type == "Reshape"]
    graph.remove([*part.seeds, *reshapes, *part.sinks], safe=True)


def _turn(graph: onnx_ir.Graph, value: Value, raw: Value, form: Form) -> Value:
    """``raw`` as the rest of the graph knows it, behind the node that computed ``value``."""
    place = value.producer()
    assert place is not None
    middle = onnx_ir.Shape((form.rows, form.members, form.size))
    swap = onnx_ir.node("Transpose", [raw], attributes={"perm": SWAP})
    nodes = [swap]
    turned = swap.outputs[0]
    turned.name, turned.shape, turned.type = f"{value.name}_rows", middle, value.type
    if len(form.shape) != 3 or not form.split:
        shape = form.source or whole(graph, f"{value.name}_shape", form.shape)
        reshape = onnx_ir.node("Reshape", [turned, shape])
        nodes.append(reshape)
        turned = reshape.outputs[0]
        turned.name, turned.type = f"{value.name}_turned", value.type
        turned.shape = onnx_ir.Shape(form.shape)
    for node in nodes:
        node.name = f"node_{node.outputs[0].name}"
        node.metadata_props.update(place.metadata_props)
    graph.insert_after(place, nodes)
    return turned
