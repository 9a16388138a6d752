"""The traced model: operators, sampled layers, width classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from cerewrite.ir.outcomes import Rejection
from cerewrite.ir.ranges import Cost, Index, Size, Text, Word

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to another operator's value inside an operator's arguments."""

    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """One node of the traced data-flow graph, the same whatever rung saw it.

    Attributes:
        name: unique name within the graph.
        target: canonical operator name: ``conv2d``, ``relu``, ``add``; ``input``,
            ``parameter``, ``constant`` and ``output`` for the graph's ends.
        inputs: names of the operators whose tensors it reads, in argument order.
        shape: shape of its output tensor at the traced batch; ``()`` for several outputs.
        module: qualified name of the innermost module that ran it ("" for the model itself);
            for a parameter, its qualified name.
        call: which call of that module this is, from 0.
        args: its positional arguments, tensors replaced by `Ref`.
        kwargs: its keyword arguments, likewise.
        function: the operator as a callable on one tensor where it is pointwise.
        dtype: type of its output's elements (``float32``, ``int64``, ``bool``); "" for several
            outputs, and where it is not known.
    """

    name: str
    target: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: str = ""
    call: int = 0
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    function: Callable[..., Any] | None = None
    dtype: str = ""

    @property
    def numel(self) -> int:
        """Number of elements of the output tensor at the traced batch."""
        return prod(self.shape)

    @property
    def is_stored(self) -> bool:
        """Whether it is a tensor of the model's own: a parameter, a buffer or a constant."""
        return self.target in ("parameter", "constant")

    @property
    def is_end(self) -> bool:
        """Whether it is one of the graph's ends, which belong to no module."""
        return self.is_stored or self.target in ("input", "output")

    @property
    def is_integral(self) -> bool:
        """Whether its output holds whole numbers or truth values, which carry no gradient."""
        return self.dtype.startswith(("int", "uint", "bool"))


@dataclass(frozen=True, slots=True)
class Layer:
    """A sampled layer: a linear or convolution whose weights are drawn at initialisation.

    Attributes:
        name: qualified name of its module.
        op: registered operator rule that knows it (``linear``, ``conv``).
        node: name of its operator in the graph.
        sources: width classes it reads: several where it reads a concatenation, in order; none
            where that width is fixed by something else.
        target: width class it writes, or None where that width is fixed.
        in_channels: channels read (of the source classes where there are any).
        out_channels: channels written.
        groups: existing groups.
        kernel: weights per (input channel, output channel) pair of one group: kernel elements,
            times the elements a flattened channel contributes.
        positions: output positions per example, of all calls together; input positions of a
            transposed convolution.
        bias: whether it has a bias.
        gain: ``fan_in * Var[W]``, dimensionless (docs/theory.md, eq. 3).
        bias_variance: variance of its biases, 0 without.
        frontend: which tracer saw it.
        times: how often it reads its source class: elements of its input's axis, kernel elements
            aside, where the class has one channel.
        writes: how often it writes its target class: once for every part side by side (query,
            key and value of one layer), each so many elements where the class has one channel.
        again: names of the operators of its module's later calls; positions are those of all.
        settings: parameters per output channel besides weight and bias.
    """

    name: str
    op: str
    node: str
    sources: tuple[str, ...]
    target: str | None
    in_channels: int
    out_channels: int
    groups: int
    kernel: int
    positions: int
    bias: bool
    gain: float
    bias_variance: float
    frontend: str
    times: int = 1
    writes: tuple[int, ...] = (1,)
    again: tuple[str, ...] = ()
    settings: int = 0

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its operators, one for every call of its module."""
        return (self.node, *self.again)

    @property
    def fan_in(self) -> int:
        """Inputs that one output unit reads."""
        return self.in_channels * self.kernel // self.groups

    @property
    def params(self) -> int:
        """Parameters: weights, biases, and settings per output channel."""
        return self.out_channels * (self.fan_in + int(self.bias) + self.settings)

    @property
    def flops(self) -> int:
        """Floating-point operations per example, two per multiply-add, biases not counted."""
        return 2 * self.out_channels * self.fan_in * self.positions


@dataclass(frozen=True, slots=True)
class PerChannel:
    """A module that acts on the channels of a value one by one (or member by member).

    Attributes:
        name: qualified name of its module.
        op: registered operator rule (``batch_norm``, ``depthwise_conv``, ``prelu``, ...).
        widths: the width classes: several where it acts on a concatenation, in order.
        params: parameters per channel.
        flops: FLOPs per channel and example in linear algebra (depthwise convs; 0 for norms).
        divisor: the width of a member must be a multiple of it (1 for none).
        least: the least width of a member that it can serve: a norm over a single channel
            returns a constant.
        times: its channels where the class has one.
        per: channels of the class where it has one (channels of a head, for a number of heads).
    """

    name: Text
    op: Word
    widths: tuple[Text, ...]
    params: Index
    flops: Cost = 0
    divisor: Size = 1
    least: Size = 1
    times: Size = 1
    per: Size = 1


@dataclass(frozen=True, slots=True)
class WidthClass:
    """Channel dimensions that must stay equal.

    Attributes:
        name: the qualified name of the first layer that writes it.
        size: channels.
        writers: layers that write it, in execution order.
        readers: layers that read it, in execution order.
        couplings: operators that tie several writers together (``add``), sorted.
        modules: the per-channel modules that must be resized with it.
        pins: why it cannot be split; empty when it can.
        step: what the width of a member must be a multiple of: channels of a head.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    couplings: tuple[str, ...]
    modules: tuple[PerChannel, ...]
    pins: tuple[Rejection, ...]
    step: int = 1


@dataclass(frozen=True, slots=True)
class TracedModel:
    """What the tracer saw: operators in execution order, layers, widths, refusals.

    Attributes:
        ops: the data-flow graph in execution order.
        layers: every sampled layer, in execution order.
        widths: every width class.
        rejections: what was refused while tracing, with reasons.
        params: parameters of the model, shared ones counted once.
        fingerprint: hash of the model's structure (names, types, shapes; not weights).
        frontend: the tracer that produced the graph.
        name: class name of the model.
        batch: batch size of the traced example.
        carried: by operator, the width classes on the channel axis of its output, in order; an
            operator whose output has no such axis is left out.
        axes: by operator, which axis of its output that is.
    """

    ops: tuple[Op, ...]
    layers: tuple[Layer, ...]
    widths: tuple[WidthClass, ...]
    rejections: tuple[Rejection, ...]
    params: int
    fingerprint: str
    frontend: str
    name: str
    batch: int
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """FLOPs of linear and convolution layers per example (two per multiply-add)."""
        return sum(layer.flops for layer in self.layers)

    @property
    def concatenations(self) -> tuple[tuple[str, ...], ...]:
        """Classes that a layer or a per-channel module reads side by side, each set once."""
        read = [layer.sources for layer in self.layers]
        read += [module.widths for width in self.widths for module in width.modules]
        return tuple(dict.fromkeys(parts for parts in read if len(parts) > 1))

    def width_graph(self) -> nx.MultiDiGraph:
        """Width classes as nodes, sampled layers as edges; fixed widths are not drawn.

        Classes that something reads as one concatenation are linked by edges without a layer.
        """
        import networkx as nx  # takes as long to import as everything else here

        graph = nx.MultiDiGraph()
        for width in self.widths:
            graph.add_node(width.name, width=width)
        for layer in self.layers:
            if layer.target is not None:
                for i, source in enumerate(layer.sources):
                    key = layer.name if i == 0 else f"{layer.name}:{i}"
                    graph.add_edge(source, layer.target, key=key, layer=layer)
        for parts in self.concatenations:
            for first, second in pairwise(parts):
                graph.add_edge(first, second, key="concatenation")
        return graph
