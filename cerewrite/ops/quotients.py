"""Quotients of two values that inputs reach, where the form says what they are.

A value over its own length; over a sum of the same weights (linear attention); its length over
positions over the channels' mean of that (global response normalisation). All other quotients
have no closed form. See docs/theory.md, section 26.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cerewrite.ir import Op
from cerewrite.ops.layout import axis_order
from cerewrite.ops.views import VIEWED

Find = Callable[[str], Op]

_CHANNELS_LAST = frozenset(
    {"linear", "linear_turned", "block_linear", "matmul", "layer_norm", "rms_norm", "embedding"}
)
_MATMULS = frozenset({"matmul", "bmm"})
_CASTS = frozenset({"to", "float", "_to_copy"})
_PADS = frozenset({"pad", "constant_pad_nd"})
_NORMS = frozenset({"linalg_vector_norm", "norm"})


@dataclass(frozen=True, slots=True)
class Quotient:
    """What a quotient is, and the one value that it is made of.

    Attributes:
        kind: ``average`` of the value over positions; its ``direction`` over channels; its
            ``sign``, where positions that are alike are divided by their length; or its
            ``response``, a channel's length over the channels' mean.
        source: name of the operator that makes the value.
        count: elements that the length is taken over; 1 for averages and responses.
    """

    kind: Literal["average", "direction", "sign", "response"]
    source: str
    count: int = 1


def quotient(op: Op, find: Find) -> Quotient | None:
    """The form of a quotient; None where it has none of these.

    Args:
        op: an operator that divides.
        find: gives an operator by name.
    """
    if len(op.inputs) != 2:
        return None
    above, below = op.inputs[0], _behind(op.inputs[1], find)
    return _length(above, below, find) or _response(above, below, find) or _linear(op, below, find)


def _behind(name: str, find: Find) -> Op:
    """What is left of a value without functions of one value, such as a sum with a small number."""
    op = find(name)
    while op.function is not None or op.target in ("clamp_min", "expand", "expand_as", "to"):
        op = find(op.inputs[0])
    return op


def _axes(op: Op, position: int) -> set[int]:
    """The axes that an operator reduces, as it names them; empty where it names none."""
    dims = op.args[position] if len(op.args) > position else (op.kwargs or {}).get("dim")
    listed = [dims] if isinstance(dims, int) else dims
    return set() if not isinstance(listed, list | tuple) else {int(d) for d in listed}


def _reduced(op: Op, position: int, find: Find) -> set[int]:
    rank = len(find(op.inputs[0]).shape)
    return {axis % rank for axis in _axes(op, position)}


def _is_length(op: Op) -> bool:
    """Whether it takes the root of a sum of squares."""
    named = op.kwargs or {}
    order = op.args[1] if len(op.args) > 1 else named.get("ord", named.get("p", 2))
    return op.target in _NORMS and order in (2, "fro", None)


def _length(above: str, below: Op, find: Find) -> Quotient | None:
    """``x / |x|`` over the channels, or over the positions of a sequence."""
    if not _is_length(below) or below.inputs[0] != above:
        return None
    shape, axes = find(above).shape, _reduced(below, 2, find)
    if len(axes) != 1:
        return None
    (axis,), channels = axes, channel_axis(above, find)
    if channels is None or axis == 0:
        return None
    if axis == channels:
        return Quotient("direction", above, shape[axis])
    return Quotient("sign", above, shape[axis]) if len(shape) == 3 else None


def channel_axis(name: str, find: Find) -> int | None:
    """The axis that holds the channels of a value, as what wrote it has them; None if unknown.

    Args:
        name: the operator that makes the value.
        find: gives an operator by name.
    """
    op = find(name)
    if op.target in _CHANNELS_LAST:
        return len(op.shape) - 1
    if op.target.startswith("conv") or op.target in ("batch_norm", "group_norm"):
        return 1
    if not op.inputs or not op.shape:
        return None
    found, before = channel_axis(op.inputs[0], find), find(op.inputs[0]).shape
    if found is None:
        return None
    if op.target in ("permute", "transpose"):
        order = axis_order(op, len(op.shape))
        return None if order is None else order.index(found)
    if op.target in (*VIEWED, "flatten"):
        kept = op.shape[: found + 1] == before[: found + 1]
        return found if kept else None
    return found if op.shape == before else None


def _response(above: str, below: Op, find: Find) -> Quotient | None:
    """``g / mean(g)`` over the channels, with ``g = |x|`` over all positions of an image."""
    length = find(above)
    if below.target != "mean" or below.inputs[0] != above or not _is_length(length):
        return None
    rank, positions = len(length.shape), _reduced(length, 2, find)
    rest = set(range(1, rank)) - positions
    fits = rank == 4 and len(positions) == 2 and _reduced(below, 1, find) == rest
    return Quotient("response", length.inputs[0]) if fits else None


def _linear(op: Op, below: Op, find: Find) -> Quotient | None:
    """``(w @ [v, 1])[:-1] / (w @ [v, 1])[-1:]``: an average of v, whatever the weights are."""
    above = find(op.inputs[0])
    if above.target != "slice" or below.target != "slice" or above.inputs[:1] != below.inputs[:1]:
        return None
    product = find(above.inputs[0])
    *lead, size = product.shape
    cuts = [part.args[1:4] for part in (above, below)]
    if any(len(cut) != 3 or cut[0] not in (-1, len(lead)) for cut in cuts):
        return None
    shapes = (above.shape, below.shape) == ((*lead, size - 1), (*lead, 1))
    if not shapes or (cuts[0][2], cuts[1][1]) != (-1, -1):
        return None
    while product.target in _MATMULS | _CASTS:
        product = find(product.inputs[-1])
    return Quotient("average", product.inputs[0]) if _adds_ones(product, find) else None


def _adds_ones(op: Op, find: Find) -> bool:
    """Whether an operator puts one column of ones behind a value's last axis."""
    if op.target not in _PADS or len(op.args) < 2:
        return False
    before, named = find(op.inputs[0]).shape, op.kwargs or {}
    numbers = [*op.args[2:], *named.values()]
    return (
        list(op.args[1]) == [0, 1]
        and op.shape == (*before[:-1], before[-1] + 1)
        and any(isinstance(n, int | float) and n == 1 for n in numbers)
    )
