"""Example inputs seen as a tree of leaves: their names, their batch axis, random draws."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.errors import ExportError

Arguments = tuple[Any, ...] | dict[str, Any]
"""Positional arguments, or keyword arguments by name."""


@dataclass(frozen=True, slots=True)
class ExampleInputs:
    """A model's arguments, positional or by keyword, that can be resized and redrawn.

    The batch size is the first axis of the first tensor that has one; every tensor whose first
    axis has that size is taken to carry the batch, whatever else is left as it was given.

    Attributes:
        leaves: tensors and constants, in the order in which the exporter meets them.
        names: one per leaf: the argument's name, then the path inside it (``pair_0``).
        batch: size of the batch axis.
        spec: the tree that the leaves came from.
    """

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    batch: int
    spec: pytree.TreeSpec

    @classmethod
    def of(cls, model: nn.Module, arguments: Sequence[Any] | Mapping[str, Any]) -> ExampleInputs:
        """Take apart the example arguments of ``model``.

        Raises:
            ExportError: if they do not fit ``forward``, or no tensor among them has an axis.

        Example:
            >>> example = ExampleInputs.of(nn.Linear(4, 2), (torch.zeros(3, 4),))
            >>> example.names, example.batch
            (('input',), 3)
        """
        try:
            signature = inspect.signature(model.forward)
            if isinstance(arguments, Mapping):
                signature.bind(**arguments)
                order = [name for name in signature.parameters if name in arguments]
                tree: Arguments = {name: arguments[name] for name in [*order, *arguments]}
                named = tree
            else:
                tree = tuple(arguments)
                named = dict(signature.bind(*tree).arguments)
        except TypeError as error:
            raise ExportError(
                f"the example inputs do not fit {type(model).__name__}.forward: {error}",
                advice="pass one example per argument of forward",
            ) from None
        names = tuple(path_name(path) for path, _ in pytree.tree_flatten_with_path(named)[0])
        leaves, spec = pytree.tree_flatten(tree)
        assert len(names) == len(leaves)
        sizes = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim]
        if not sizes:
            raise ExportError(
                f"{type(model).__name__}: no example input is a tensor with a batch axis",
                advice="pass an example tensor whose first axis is the batch",
            )
        return cls(tuple(leaves), names, int(sizes[0]), spec)

    def carries_batch(self, leaf: Any) -> bool:
        """Whether the leaf is a tensor whose first axis is the batch."""
        return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == self.batch

    def resized(self, batch: int) -> Arguments:
        """The arguments at another batch size, the example's rows repeated or cut."""
        return self._rebuild([self._resize(leaf, batch) for leaf in self.leaves])

    def raised(self) -> ExampleInputs:
        """The example with at least two rows: torch.export bakes a single one into the graph."""
        if self.batch >= 2:
            return self
        leaves = tuple(self._resize(leaf, 2) for leaf in self.leaves)
        return ExampleInputs(leaves, self.names, 2, self.spec)

    def drawn(self, batch: int, seed: int) -> Arguments:
        """Random arguments of ``batch`` rows: see `draw`; constants stay what they are."""
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for leaf in self.leaves:
            resized = self._resize(leaf, batch)
            drawn.append(draw(resized, generator) if self.carries_batch(leaf) else resized)
        return self._rebuild(drawn)

    def dynamic_shapes(self, symbol: Any) -> Arguments:
        """``symbol`` for the first axis of every tensor that carries the batch."""
        return self._rebuild(
            [{0: symbol} if self.carries_batch(leaf) else None for leaf in self.leaves]
        )

    def tensor_names(self) -> tuple[str, ...]:
        """Names of the leaves that are tensors, in order."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tuple(name for name, leaf in pairs if isinstance(leaf, Tensor))

    def batched_names(self) -> tuple[str, ...]:
        """Names of the tensors that carry the batch, in order."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tuple(name for name, leaf in pairs if self.carries_batch(leaf))

    def _resize(self, leaf: Any, batch: int) -> Any:
        if not self.carries_batch(leaf) or batch == self.batch:
            return leaf
        return leaf[torch.arange(batch, device=leaf.device) % self.batch]

    def _rebuild(self, leaves: list[Any]) -> Arguments:
        rebuilt: Arguments = pytree.tree_unflatten(leaves, self.spec)
        return rebuilt


def call(model: nn.Module, arguments: Arguments) -> Any:
    """``model`` called with positional or keyword arguments."""
    return model(**arguments) if isinstance(arguments, dict) else model(*arguments)


def draw(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random values of the shape, dtype, device and range of ``like``.

    Floating-point values are normal with the mean and standard deviation of ``like`` (1 where it
    is constant); integers and booleans are uniform between its least and greatest value. A
    tensor of neither kind, and one with infinite values (an attention mask), is returned as it is.

    Example:
        >>> draw(torch.tensor([3, 5]), torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    if like.numel() == 0 or like.is_complex() or not bool(like.isfinite().all()):
        return like
    if like.is_floating_point():
        values = like.double()
        spread = float(values.std(correction=0)) or 1.0
        noise = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return (float(values.mean()) + spread * noise).to(like.device, like.dtype)
    low, high = int(like.min()), int(like.max())
    return torch.randint(low, high + 1, like.shape, generator=generator).to(like.device, like.dtype)


def named_tensors(outputs: Any, taken: Sequence[str]) -> tuple[tuple[str, Tensor], ...]:
    """The tensors among a model's outputs, in leaf order, each with a name of its own.

    A single tensor is ``output``; one of a tuple ``output_0``; one of a mapping its key.
    ``None`` is left out; a name in ``taken`` gets the suffix ``_out``.

    Raises:
        ExportError: if an output is neither a tensor nor None, or there is none at all.
    """
    found: dict[str, Tensor] = {}
    for path, leaf in pytree.tree_flatten_with_path(outputs)[0]:
        if leaf is None:
            continue
        name = path_name(path)
        if not name or name[0].isdigit():
            name = f"output_{name}".rstrip("_")
        if not isinstance(leaf, Tensor):
            raise ExportError(
                f"output '{name}' is a {type(leaf).__name__}, not a tensor",
                advice="return tensors only, or wrap the model in one that does",
            )
        while name in taken or name in found:
            name += "_out"
        found[name] = leaf
    if not found:
        raise ExportError("the model returns no tensor", advice="return at least one tensor")
    return tuple(found.items())


def path_name(path: Sequence[Any]) -> str:
    """The keys, indices and attributes of a path inside a tree, joined by underscores."""
    parts = (getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path)
    return "_".join(re.sub(r"\W", "_", str(part)) for part in parts)
