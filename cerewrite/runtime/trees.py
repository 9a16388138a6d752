"""Tensors in whatever a model takes or returns: nested containers, data classes, objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_DEPTH = 8


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a nested structure, in order.

    Beyond the containers that torch knows (tuples, lists, dicts, named tuples, registered
    classes) it looks into mappings, data classes and plain objects.

    Args:
        tree: what a model takes or returns.

    Example:
        >>> @dataclasses.dataclass
        ... class Output:
        ...     logits: Tensor
        ...     hidden: list
        >>> [t.shape[0] for t in tensors(Output(torch.ones(2), [torch.ones(3)]))]
        [2, 3]
    """
    return list(_walk(tree, _DEPTH))


def _walk(tree: Any, depth: int) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth > 0:
            for value in _inside(leaf):
                yield from _walk(value, depth - 1)


def _inside(leaf: Any) -> list[Any]:
    """The parts of an object that torch takes for one leaf."""
    if isinstance(leaf, type | str | bytes | int | float | complex) or leaf is None:
        return []
    if dataclasses.is_dataclass(leaf):
        return [getattr(leaf, field.name) for field in dataclasses.fields(leaf)]
    if isinstance(leaf, Mapping):
        return list(leaf.values())
    return list(vars(leaf).values()) if hasattr(leaf, "__dict__") else []


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """A nested structure like another, each of its tensors replaced by what a function makes of it.

    It looks where `tensors` looks, in the same order; data classes, mappings and plain objects
    are copied, the tree itself stays as it is.

    Args:
        function: of one tensor.
        tree: what a model takes or returns.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Output:
        ...     logits: Tensor
        ...     hidden: list
        >>> map_tensors(len, (Output(torch.ones(2), [torch.ones(3)]), "name"))
        (Output(logits=2, hidden=[3]), 'name')
    """
    return _mapped(function, tree, _DEPTH)


def _mapped(function: Callable[[Tensor], Any], tree: Any, depth: int) -> Any:
    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if depth == 0 or not any(True for _ in _walk(leaf, depth)):
            return leaf
        new = copy.copy(leaf)
        if isinstance(leaf, Mapping) and not dataclasses.is_dataclass(leaf):
            parts = {key: _mapped(function, value, depth - 1) for key, value in leaf.items()}
            if not isinstance(new, MutableMapping):
                return parts
            new.update(parts)
            return new
        record = dataclasses.is_dataclass(leaf)
        names = [f.name for f in dataclasses.fields(leaf)] if record else list(vars(leaf))
        for name in names:
            object.__setattr__(new, name, _mapped(function, getattr(leaf, name), depth - 1))
        return new

    return pytree.tree_map(one, tree)


def examples(inputs: Any, rows: int) -> int:
    """How many examples the inputs of a model hold.

    That is the first axis of the first tensor. A list of tensors may be a list of examples: it is
    where the model's layers have as many rows as the list is long, and not as the tensors have.

    Args:
        inputs: arguments of a forward call, with a tensor that has an axis.
        rows: first axis of what the model's first layer writes.

    Example:
        >>> examples(torch.ones(4, 3), 4), examples(([torch.ones(3, 8, 8)] * 2,), 2)
        (4, 2)
        >>> examples(([torch.ones(4, 8, 8)] * 2,), 4)
        4
    """
    first = tensors(inputs)[0]
    size = int(first.shape[0])
    lists = [leaf for leaf in _lists(inputs) if any(item is first for item in leaf)]
    return rows if rows != size and any(len(item) == rows for item in lists) else size


def _lists(tree: Any) -> list[list[Any]]:
    """The lists of a structure of which no part is a list again."""
    leaves = pytree.tree_leaves(tree, is_leaf=lambda part: isinstance(part, list))
    return [leaf for leaf in leaves if isinstance(leaf, list)]


def with_rows(tree: Any, rows: int, batch: int) -> Any:
    """A tree at another batch size: tensors with ``rows`` rows have them repeated or cut.

    Example:
        >>> with_rows((torch.arange(2), 7), 2, 3)
        (tensor([0, 1, 0]), 7)
    """

    def resize(leaf: Any) -> Any:
        carries = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == rows
        return stretched(leaf, 0, batch) if carries else leaf

    return pytree.tree_map(resize, tree)


def stretched(tensor: Tensor, axis: int, size: int) -> Tensor:
    """A tensor with ``size`` elements along an axis: its own, repeated or cut."""
    if tensor.shape[axis] == size:
        return tensor
    index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
    return tensor.index_select(axis, index)
