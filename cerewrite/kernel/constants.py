"""Values that no signal reaches, computed: positions, masks, grids, statistics of a dataset.

Whole numbers and truth values among the inputs are no signals: tokens, masks, positions. What is
made of them alone is computed as if they were all 1 (docs/theory.md, section 27).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from cerewrite.ir import Op, Ref
from cerewrite.runtime.alone import alone

_SHAPED = {"zeros_like": 0.0, "new_zeros": 0.0, "ones_like": 1.0, "new_ones": 1.0}
"""Operators that take nothing but its shape from a value."""
_WRITES = frozenset({"fill", "copy", "zero", "setitem", "add", "mul", "sub", "div", "masked_fill"})
_LARGEST = 1 << 26
"""Elements of a value that is computed at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """The tensor of a constant that is no buffer: the one argument of its operator.

    Attributes:
        value: the tensor.
    """

    value: Tensor


class Constants:
    """Operators whose operands are parameters, buffers and numbers alone, and their values.

    Layers that draw weights are none of them, whatever they read, nor are embeddings.

    Args:
        ops: operators in execution order.
        drawn: names of the operators of such layers.
        tensor: the parameter or buffer of a qualified name; None if there is none.

    Attributes:
        trained: operators that a parameter reaches.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        tensor: Callable[[str], Tensor | None],
        drawn: Collection[str] = (),
    ) -> None:
        self._ops = {op.name: op for op in ops}
        self._tensor = tensor
        self._values: dict[str, Any] = {}
        self._fixed: set[str] = set()
        self.trained: set[str] = set()
        for op in ops:
            token = op.target == "input" and op.is_integral
            if (
                token
                or op.target in _SHAPED
                or (
                    op.target not in ("input", "output", "host_read", "embedding")
                    and op.name not in drawn
                    and all(name in self._fixed for name in op.inputs)
                )
            ):
                self._fixed.add(op.name)
            if op.target == "parameter" or not self.trained.isdisjoint(op.inputs):
                self.trained.add(op.name)
        self._fixed -= set(_written(ops, self._ops))

    def value(self, name: str) -> Tensor | None:
        """An operator's value in double precision.

        Returns:
            None where an input reaches it, where it was written to later on, or where it cannot
            be computed here.
        """
        found = self._evaluate(name)
        if not isinstance(found, Tensor) or found.is_complex():
            return None
        return found.detach().double()

    def _evaluate(self, name: str) -> Any:
        if name not in self._fixed:
            return None
        if name not in self._values:
            self._values[name] = self._call(self._ops[name])
        return self._values[name]

    def _call(self, op: Op) -> Any:
        if op.numel > _LARGEST:
            return None
        if op.target == "input":
            return torch.ones(op.shape, dtype=getattr(torch, op.dtype))
        if op.target in _SHAPED:
            return torch.full(op.shape, _SHAPED[op.target], dtype=torch.float64)
        if op.args and isinstance(op.args[0], Literal):
            return op.args[0].value
        if op.is_stored:
            found = self._tensor(op.module)
            unreadable = found is None or found.is_meta or isinstance(found, FakeTensor)
            return None if found is None or unreadable else found.detach()
        values = {name: self._evaluate(name) for name in op.inputs}
        if any(value is None for value in values.values()):
            return None
        args, named = _filled((op.args, dict(op.kwargs or {})), values)
        named.pop("device", None)
        for function in _functions(op.target):
            try:
                with alone(), torch.no_grad():
                    result = function(*args, **named)
            except Exception:  # another namesake may take these arguments
                continue
            if not isinstance(result, Tensor):
                if op.shape == () and isinstance(result, tuple | list):
                    return result
            elif tuple(result.shape) == op.shape and not result.is_meta:
                return result
        return None


def _filled(arguments: Any, values: Mapping[str, Any]) -> Any:
    def is_reference(leaf: Any) -> bool:
        return isinstance(leaf, Ref)

    def fill(leaf: Any) -> Any:
        return values[leaf.name] if is_reference(leaf) else leaf

    return pytree.tree_map(fill, arguments, is_leaf=is_reference)


def _functions(target: str) -> Iterator[Callable[..., Any]]:
    """Functions of an operator's name, ATen's first."""
    if target == "getitem":
        yield operator.getitem
    for owner in (torch.ops.aten, Tensor, torch, functional, operator):
        function = getattr(owner, target, None)
        if callable(function):
            yield function


def _written(ops: Sequence[Op], known: Mapping[str, Op]) -> Iterator[str]:
    """Values that an operator may have written to: its result is read by none, or it says so."""
    read = {name for op in ops for name in op.inputs}
    for op in ops:
        if op.target in _WRITES and op.inputs and (op.name not in read or op.target == "setitem"):
            name = op.inputs[0]
            yield op.name
            yield name
            while known[name].inputs:  # what it may be a view of
                name = known[name].inputs[0]
                yield name
