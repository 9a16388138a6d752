"""Tensors in whatever a model takes or returns: nested containers, data classes, objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

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
        >>> import torch
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
