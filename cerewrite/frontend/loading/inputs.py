"""Example inputs: read a shape from the command line, draw tensors of it, describe them again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from cerewrite.errors import UsageError, first_line
from cerewrite.ir.inputs import Inputs
from cerewrite.registry import suggest

if TYPE_CHECKING:
    import torch

DTYPES = ("bool", "float16", "bfloat16", "float32", "float64", "int32", "int64")

LARGEST_INPUT = 1 << 28
"""Values of the example inputs that are drawn, together: 1 GiB in float32."""

_SIZES = re.compile(r"[0-9]{1,19}(,[0-9]{1,19}){0,15}")


@dataclass(frozen=True, slots=True)
class InputShape:
    """One example input to be drawn: its shape, dtype and, for keyword arguments, its name."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = ""

    def __str__(self) -> str:
        prefix = f"{self.name}=" if self.name else ""
        return f"{prefix}{','.join(map(str, self.shape))}:{self.dtype}"


def parse_input_shape(text: str) -> InputShape:
    """Read ``[name=]1,3,224,224[:dtype]``.

    Raises:
        UsageError: if the text has another form.

    Example:
        >>> parse_input_shape("1,3,224,224")
        InputShape(shape=(1, 3, 224, 224), dtype='float32', name='')
        >>> str(parse_input_shape("ids=2,16:int64"))
        'ids=2,16:int64'
    """
    name, named, rest = text.rpartition("=")
    sizes, typed, dtype = rest.partition(":")
    dtype = dtype if typed else "float32"
    if dtype not in DTYPES:
        raise UsageError(
            f"--input {text[:200]}: unknown dtype '{dtype}'",
            advice=suggest(dtype, dict.fromkeys(DTYPES)),
        )
    shape = tuple(map(int, sizes.split(","))) if _SIZES.fullmatch(sizes) else ()
    if not shape or min(shape) < 1 or (named and not name.isidentifier()):
        raise UsageError(
            f"--input {text[:200]}: not a shape",
            advice="write sizes with commas, batch first, such as 1,3,224,224 or ids=1,128:int64",
        )
    if prod(shape) > LARGEST_INPUT:
        raise UsageError(
            f"--input {text}: {prod(shape):,} values, more than {LARGEST_INPUT:,}",
            advice="give a smaller example: a batch of 2 is enough",
        )
    return InputShape(shape, dtype, name)


def make_inputs(shapes: Sequence[InputShape], *, seed: int = 0) -> Inputs:
    """Draw example inputs: standard normal, or zeros and ones for integer dtypes.

    The batch is raised to at least 2, because tracing takes a batch of 1 for a constant.

    Args:
        shapes: what to draw, batch axis first.
        seed: seed of the draw; the global generator is left alone.

    Returns:
        A tuple of tensors, or a dict where the shapes are named.

    Raises:
        UsageError: if some shapes are named and others are not, or a name comes twice.

    Example:
        >>> (x,) = make_inputs([parse_input_shape("1,3,8,8")])
        >>> tuple(x.shape)
        (2, 3, 8, 8)
    """
    import torch

    names = [shape.name for shape in shapes]
    if any(names) and (not all(names) or len(set(names)) < len(names)):
        raise UsageError(
            f"--input: names {names} must be given to every input, each once",
            advice="name all inputs or none",
        )
    if (values := sum(prod(shape.shape) for shape in shapes)) > LARGEST_INPUT:
        raise UsageError(
            f"--input: {values:,} values in {len(shapes)} inputs, more than {LARGEST_INPUT:,}",
            advice="give smaller examples: a batch of 2 is enough",
        )
    generator = torch.Generator().manual_seed(seed)
    try:
        tensors = [_drawn(item, generator) for item in shapes]
    except (RuntimeError, MemoryError) as error:
        listed = " ".join(map(str, shapes))
        raise UsageError(
            f"--input {listed[:200]}: cannot be held: {first_line(error)}",
            advice="give a smaller example: a batch of 2 is enough",
        ) from None
    return dict(zip(names, tensors, strict=True)) if any(names) else tuple(tensors)


def _drawn(item: InputShape, generator: torch.Generator) -> torch.Tensor:
    import torch

    size = (max(2, item.shape[0]), *item.shape[1:])
    dtype: torch.dtype = getattr(torch, item.dtype)
    if dtype.is_floating_point:
        return torch.randn(size, generator=generator).to(dtype)
    return torch.randint(0, 2, size, generator=generator).to(dtype)


def describe_inputs(inputs: Inputs) -> list[InputShape] | None:
    """The shapes from which `make_inputs` draws alike inputs; None if some are no tensors."""
    from torch import Tensor

    named = inputs.items() if isinstance(inputs, dict) else [("", value) for value in inputs]
    found = []
    for name, value in named:
        if not isinstance(value, Tensor) or not value.ndim:
            return None
        found.append(InputShape(tuple(value.shape), str(value.dtype).removeprefix("torch."), name))
    return found if all(item.dtype in DTYPES for item in found) else None
