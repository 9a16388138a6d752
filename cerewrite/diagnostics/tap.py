"""A forward pass seen from outside: its layers, activations, sums and products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from cerewrite.diagnostics.material import Material
from cerewrite.frontend.tracing.calls import acts_unit_by_unit

_LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
_JOINTS = frozenset({"add", "iadd", "radd", "mul", "imul", "rmul"})
RECTIFIERS = frozenset({"relu", "relu6", "leaky_relu", "hardtanh"})
"""Activations that cut at zero."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A sum or a product of two values that depend on parameters.

    Attributes:
        left, right: the operands' values, without gradients.
        edges: where the operands and the result stand in the graph, the result last.
        where: qualified name of the layer that ran last before it, and which joint it is.
    """

    left: Tensor
    right: Tensor
    edges: tuple[GradientEdge, GradientEdge, GradientEdge]
    where: str


@dataclass(slots=True)
class Seen:
    """What one forward pass did.

    Attributes:
        slopes: by layer, the derivative of what follows it unit by unit, batch norms with
            their statistics held, up to the first activation; of the layer's output's shape.
        weights: by layer, the weight and groups.
        codes: per activation, whether each unit's input is above 0, ``[batch, units]``.
        activated: by layer, whether an activation followed.
        sums, products: in order.
        reads: by layer, a number for the tensor that it read.
    """

    slopes: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    codes: list[Tensor] = field(default_factory=list)
    activated: set[str] = field(default_factory=set)
    sums: list[Joined] = field(default_factory=list)
    products: list[Joined] = field(default_factory=list)
    reads: dict[str, int] = field(default_factory=dict)


def watch(material: Material, *, joints: bool = True, slopes: bool = True) -> Seen:
    """Run the model once and note what it does.

    Args:
        material: what to run.
        joints: whether sums and products are noted.
        slopes: whether slopes are computed; they cost no pass.
    """
    tap = _Tap(material, joints, slopes)
    with tap:
        material.run()
    return tap.seen


class _Tap(TorchFunctionMode):
    """Looks at every call of torch; values are the model's own, nothing is changed."""

    def __init__(self, material: Material, joints: bool, slopes: bool) -> None:
        super().__init__()
        self.seen = Seen()
        self._joints, self._slopes = joints, slopes
        self._names = {
            id(material.model.get_parameter(weight)): layer
            for layer, weight in material.layer_weights().items()
        }
        self._behind: dict[int, tuple[Tensor, str]] = {}
        self._kept: list[Tensor] = []
        self._last = "input"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        before = self._before(name, func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self._after(name, func, args, kwargs, result, before)
        return result

    def _before(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """What must be read before an operator in place overwrites it."""
        tensors = [a for a in args if isinstance(a, Tensor)]
        if not tensors:
            return None
        if self._joints and name.strip("_") in _JOINTS and _trained(tensors[:2]):
            left, right = tensors[:2]
            edges = (get_gradient_edge(left), get_gradient_edge(right))
            return left.detach().clone(), right.detach().clone(), edges
        first = tensors[0]
        if name.rstrip("_") in RECTIFIERS or first is self._behind.get(id(first), (None,))[0]:
            return first.detach().clone()
        return None

    def _after(
        self, name: str, func: Any, args: Any, kwargs: Any, result: Tensor, before: Any
    ) -> None:
        self._kept.append(result)  # ids of tensors that live are unique
        if name in _LAYERS:
            self._layer(name, args, kwargs, result)
            return
        if isinstance(before, tuple):
            self._joint(name.strip("_"), before, result)
            return
        if name.rstrip("_") in RECTIFIERS and isinstance(before, Tensor):
            self.seen.codes.append((before > 0).flatten(1) if before.dim() > 1 else before > 0)
        source = next((a for a in args if isinstance(a, Tensor)), None)
        if source is None or not isinstance(before, Tensor):
            return
        layer = self._behind.get(id(source), (None, ""))[1]
        if layer:
            self._follow(name, layer, func, args, kwargs, before, result)

    def _layer(self, name: str, args: Any, kwargs: Any, result: Tensor) -> None:
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        layer = self._names.get(id(weight))
        if layer is None or layer in self.seen.weights:
            return  # a computed weight, or a second call
        groups = int(kwargs.get("groups", args[6] if len(args) > 6 else 1))
        self.seen.weights[layer] = (weight.detach(), groups)
        read = args[0] if args else kwargs["input"]
        self.seen.reads[layer] = id(read)
        self._kept.append(read)
        self._last = layer
        if self._slopes:
            self.seen.slopes[layer] = torch.ones_like(result)
            self._behind[id(result)] = (result, layer)

    def _follow(
        self, name: str, layer: str, func: Any, args: Any, kwargs: Any, before: Tensor, out: Tensor
    ) -> None:
        """Multiply the slope of what acts unit by unit; stop behind the first activation."""
        if layer in self.seen.activated:
            return  # in place, its result is the same tensor
        slope = self.seen.slopes[layer]
        if name == "batch_norm":
            self.seen.slopes[layer] = slope * _norm_slope(args, kwargs, before)
            self._behind[id(out)] = (out, layer)
            return
        if name == "dropout":  # off
            self._behind[id(out)] = (out, layer)
            return
        if out.shape != before.shape:
            return
        if (
            not acts_unit_by_unit(name.rstrip("_"))
            or len([a for a in args if isinstance(a, Tensor)]) > 1
        ):
            return
        with torch.enable_grad():
            z = before.clone().requires_grad_()
            value = func(z.clone(), *args[1:], **kwargs)
            self.seen.slopes[layer] = slope * torch.autograd.grad(value.sum(), z)[0]
        self.seen.activated.add(layer)

    def _joint(self, kind: str, before: Any, result: Tensor) -> None:
        left, right, edges = before
        if not result.requires_grad:
            return
        found = self.seen.sums if "add" in kind else self.seen.products
        where = f"{self._last}+{len(found)}"
        found.append(Joined(left, right, (*edges, get_gradient_edge(result)), where))


def _trained(pair: Sequence[Tensor]) -> bool:
    """Whether these are two values that depend on parameters."""
    return len(pair) == 2 and all(t.requires_grad and t.dim() for t in pair)


def _norm_slope(args: Any, kwargs: Any, z: Tensor) -> Tensor:
    """Scale of a batch norm with its statistics held, shaped to multiply ``z``."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum")
    given = dict(zip((*names, "eps"), args, strict=False)) | kwargs
    axes = [axis for axis in range(z.dim()) if axis != 1]
    own = bool(given.get("training")) or given.get("running_var") is None
    variance = z.var(axes, unbiased=False) if own else given["running_var"]
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        scale = scale * given["weight"].detach()
    shape = [1] * z.dim()
    shape[1] = -1
    shaped: Tensor = scale.view(shape)
    return shaped


def skips(seen: Seen) -> Iterator[tuple[Joined, int]]:
    """Sums of a value and a function of it, with which operand is the value itself."""
    for joined in seen.sums:
        if joined.left.shape != joined.right.shape:
            continue
        for own in (0, 1):
            if _reaches(joined.edges[1 - own], joined.edges[own]):
                yield joined, own
                break


def _reaches(start: GradientEdge, goal: GradientEdge) -> bool:
    """Whether the graph behind ``start`` holds ``goal``."""
    if goal.node is None or start.node is goal.node:
        return False
    todo: list[Node | None] = [start.node]
    known: set[Node] = set()
    while todo:
        node = todo.pop()
        if node is None or node in known:
            continue
        known.add(node)
        for parent, number in node.next_functions:
            if parent is goal.node and number == goal.output_nr:
                return True
            todo.append(parent)
    return False
