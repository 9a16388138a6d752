"""Example inputs seen as a tree of leaves: their names, their batch axis, random draws."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.errors import ExportError
from cerewrite.runtime.alone import alone
from cerewrite.runtime.trees import stretched

Arguments = tuple[Any, ...] | dict[str, Any]
"""Positional arguments, or keyword arguments by name."""

DynamicAxes = Mapping[str, Sequence[int] | Mapping[int, str]]
"""Axes beside the batch that may vary, per input; a symbol per axis, or one made of both."""


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
        open: other axes that may vary: leaf's name, axis, symbol.
    """

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    batch: int
    spec: pytree.TreeSpec
    open: tuple[tuple[str, int, str], ...] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        arguments: Sequence[Any] | Mapping[str, Any],
        dynamic: DynamicAxes | None = None,
    ) -> ExampleInputs:
        """Take apart the example arguments of ``model``.

        Raises:
            ExportError: if they do not fit ``forward``, no tensor among them has an axis, or
                ``dynamic`` names an input or axis that is not there.

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
        example = cls(tuple(leaves), names, int(sizes[0]), spec)
        return replace(example, open=tuple(example._opened(dynamic or {})))

    def _opened(self, dynamic: DynamicAxes) -> Iterator[tuple[str, int, str]]:
        """The axes that ``dynamic`` names, each checked."""
        tensors = dict(zip(self.names, self.leaves, strict=True))
        for name, axes in dynamic.items():
            leaf = tensors.get(name)
            if not isinstance(leaf, Tensor):
                raise ExportError(
                    f"dynamic axes of '{name}': no such input tensor",
                    advice=f"choose among {', '.join(self.tensor_names())}",
                )
            for axis in axes:
                symbol = axes[axis] if isinstance(axes, Mapping) else ""
                if not -leaf.ndim <= axis < leaf.ndim:
                    raise ExportError(
                        f"dynamic axis {axis} of '{name}': it has {leaf.ndim} axes",
                        advice=f"choose an axis from 0 to {leaf.ndim - 1}",
                    )
                axis %= leaf.ndim
                if axis or not self.carries_batch(leaf):
                    yield name, axis, symbol or f"{name}_{axis}"

    def sizes(self) -> dict[str, int]:
        """The example's size along every open axis, by symbol.

        Raises:
            ExportError: if two axes of one symbol have different sizes.
        """
        tensors = dict(zip(self.names, self.leaves, strict=True))
        found: dict[str, int] = {}
        for name, axis, symbol in self.open:
            size = int(tensors[name].shape[axis])
            if found.setdefault(symbol, size) != size:
                raise ExportError(
                    f"the dynamic axes called '{symbol}' have {found[symbol]} and {size} elements "
                    "in the example",
                    advice="give axes that vary on their own names of their own",
                )
        return found

    def carries_batch(self, leaf: Any) -> bool:
        """Whether the leaf is a tensor whose first axis is the batch."""
        return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == self.batch

    def resized(self, batch: int, sizes: Mapping[str, int] | None = None) -> Arguments:
        """The arguments at another batch size, and other ``sizes`` of open axes by symbol.

        The example's elements are repeated or cut.
        """
        return self._rebuild(self._resize_all(batch, sizes or {}))

    def raised(self) -> ExampleInputs:
        """The example with at least two elements along every axis that varies.

        torch.export bakes a single one into the graph.
        """
        sizes = {symbol: max(2, size) for symbol, size in self.sizes().items()}
        if self.batch >= 2 and sizes == self.sizes():
            return self
        leaves = tuple(self._resize_all(max(2, self.batch), sizes))
        return replace(self, leaves=leaves, batch=max(2, self.batch))

    def drawn(self, batch: int, seed: int, sizes: Mapping[str, int] | None = None) -> Arguments:
        """Random arguments of ``batch`` rows: see `draw`; constants stay what they are."""
        generator = torch.Generator().manual_seed(seed)
        opened = {name for name, _, _ in self.open}
        resized = self._resize_all(batch, sizes or {})
        return self._rebuild(
            [
                draw(new, generator) if self.carries_batch(leaf) or name in opened else new
                for name, leaf, new in zip(self.names, self.leaves, resized, strict=True)
            ]
        )

    def dynamic_shapes(self, symbol: Callable[[str], Any]) -> Arguments:
        """What ``symbol`` makes of each varying axis's name, by axis, for every tensor."""
        made = {name: symbol(name) for name in ("batch", *self.sizes())}
        shapes = []
        for name, leaf in zip(self.names, self.leaves, strict=True):
            axes = {axis: made[text] for other, axis, text in self.open if other == name}
            if self.carries_batch(leaf):
                axes[0] = made["batch"]
            shapes.append(axes or None)
        return self._rebuild(shapes)

    def tensor_names(self) -> tuple[str, ...]:
        """Names of the leaves that are tensors, in order."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tuple(name for name, leaf in pairs if isinstance(leaf, Tensor))

    def batched_names(self) -> tuple[str, ...]:
        """Names of the tensors that carry the batch, in order."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tuple(name for name, leaf in pairs if self.carries_batch(leaf))

    def _resize_all(self, batch: int, sizes: Mapping[str, int]) -> list[Any]:
        resized = []
        for name, leaf in zip(self.names, self.leaves, strict=True):
            wanted = {
                a: sizes[text] for other, a, text in self.open if other == name and text in sizes
            }
            if self.carries_batch(leaf):
                wanted[0] = batch
            for axis, size in wanted.items():
                leaf = stretched(leaf, axis, size)
            resized.append(leaf)
        return resized

    def _rebuild(self, leaves: list[Any]) -> Arguments:
        rebuilt: Arguments = pytree.tree_unflatten(leaves, self.spec)
        return rebuilt


def call(model: nn.Module, arguments: Arguments) -> Any:
    """``model`` called with positional or keyword arguments."""
    with alone():
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
