"""Tiny modules by which the laws over all rules are tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Case:
    """A small module and the shapes of its inputs.

    Attributes:
        build: makes the module.
        shapes: of its inputs, examples first.
        integers: inputs are indices below this number; 0 for real ones.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    integers: int = 0

    def inputs(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Standard normal inputs, or random indices."""
        generator = torch.Generator().manual_seed(seed)
        if self.integers:
            return tuple(
                torch.randint(self.integers, shape, generator=generator) for shape in self.shapes
            )
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """What the function returns."""
        return self.function(*inputs)


def module_case(build: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Case:
    """A case of a module."""
    return Case(build, shapes)


def function_case(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Case:
    """A case of a function of tensors.

    Example:
        >>> case = function_case(torch.relu, (2, 3))
        >>> case.build()(*case.inputs()).shape
        torch.Size([2, 3])
    """
    return Case(lambda: Apply(function), shapes)
