"""The scalar whose tangent kernel is measured: f = v . output (docs/theory.md, section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cerewrite.errors import AnalysisError
from cerewrite.estimators.outputs import counted_outputs
from cerewrite.ir import TracedModel

_VECTOR_SEED = 20_200_607


@dataclass(frozen=True, slots=True)
class Readout:
    """Which number of a model's output is read.

    Attributes:
        output: name or index of the output; "" for the first tensor.
        channel: the channel; None for a fixed random unit vector over all of them.
        axis: channel axis of outputs with positions: 1 behind a convolution, else the last.
        also: places of further floating outputs, which are read and added.

    Example:
        >>> Readout(channel=1)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).item()
        2.0
    """

    output: str = ""
    channel: int | None = None
    axis: int = -1
    also: tuple[int, ...] = ()

    def __call__(self, outputs: Any) -> Tensor:
        """The scalar f: channels dotted with v, averaged over positions, first example.

        Raises:
            AnalysisError: if the output or channel does not exist, is empty, or is no floating
                tensor.
        """
        found = self._read(self._select(outputs))
        others = [leaf for leaf in pytree.tree_leaves(outputs) if _floating(leaf)]
        for place in self.also:
            if place < len(others) and others[place].numel():
                found = found + self._read(others[place]).to(found.dtype)
        return found

    def _read(self, value: Tensor) -> Tensor:
        """One output's channels dotted with v, averaged over positions, first example."""
        if not value.numel():
            raise AnalysisError(
                f"the output that is read is empty, of shape {list(value.shape)}: detectors that "
                "find nothing return this",
                advice="read another output with --readout, or analyse the part that is wanted, "
                "such as the backbone",
            )
        if value.dim() == 0:
            return value
        example = value[0]
        if example.dim() == 0:
            example = example[None]
        axis = self.axis - 1 if self.axis > 0 and example.dim() > 1 else -1
        channels = example.movedim(axis, 0).flatten(1) if example.dim() > 1 else example[:, None]
        mean = channels.mean(1)
        if self.channel is None:
            return mean @ unit_vector(len(mean)).to(mean)
        if not 0 <= self.channel < len(mean):
            raise AnalysisError(
                f"the output has {len(mean)} channels, the read-out asks for {self.channel}",
                advice=f"choose a channel from 0 to {len(mean) - 1}",
            )
        return mean[self.channel]

    def _select(self, outputs: Any) -> Tensor:
        if self.output == "":
            tensors = [leaf for leaf in pytree.tree_leaves(outputs) if _floating(leaf)]
            if not tensors:
                raise AnalysisError(
                    f"the model returns {type(outputs).__name__} without a floating tensor",
                    advice="analyse a part of it that returns one",
                )
            first: Tensor = tensors[0]
            return first
        named = _named(outputs)
        value = named.get(self.output)
        if value is None or not _floating(value):
            raise AnalysisError(
                f"the model has no tensor output '{self.output}'",
                advice=f"choose from: {', '.join(k for k, v in named.items() if _floating(v))}",
            )
        found: Tensor = value
        return found


def parse_readout(text: str, traced: TracedModel) -> Readout:
    """``""``, ``logits``, ``:3`` or ``logits:3``.

    Raises:
        AnalysisError: if the channel is no number.
    """
    output, mark, channel = text.partition(":")
    if mark and not channel.isdecimal():
        raise AnalysisError(f"read-out '{text}'", advice="write OUTPUT, :CHANNEL or OUTPUT:CHANNEL")
    also = () if text else counted_outputs(traced)[1:]
    return Readout(output, int(channel) if mark else None, _channel_axis(traced), also)


def unit_vector(size: int) -> Tensor:
    """The fixed unit vector over ``size`` channels, ``[size]``: Gaussian, the same always.

    Example:
        >>> round(unit_vector(7).norm().item(), 6)
        1.0
    """
    generator = torch.Generator().manual_seed(_VECTOR_SEED)
    vector = torch.randn(size, generator=generator, dtype=torch.float64)
    unit: Tensor = vector / vector.norm()
    return unit


def _channel_axis(traced: TracedModel) -> int:
    """1 if the nearest sampled layer before the output is a convolution, else the last."""
    ops = {op.name: op for op in traced.ops}
    kinds = {node: layer.op for layer in traced.layers for node in layer.nodes}
    stack = [op.name for op in traced.ops if op.target == "output"]
    seen: set[str] = set()
    while stack:
        name = stack.pop(0)
        if name in kinds:
            return 1 if "conv" in kinds[name] else -1
        if name not in seen:
            seen.add(name)
            stack += ops[name].inputs
    return -1


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _named(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {str(key): value for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        return {str(index): value for index, value in enumerate(outputs)}
    if isinstance(outputs, Tensor):
        return {"0": outputs}
    return {key: value for key, value in vars(outputs).items() if not key.startswith("_")}
