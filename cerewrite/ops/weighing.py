"""What attention weighs by: queries and keys behind a fused operator, or behind a softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cerewrite.ir import Op

SOFTMAX = frozenset({"softmax", "_softmax", "safe_softmax"})
PRODUCTS = frozenset({"matmul", "bmm", "einsum"})
FUSED = frozenset({"scaled_dot_product_attention"})
_BETWEEN = SOFTMAX | frozenset(
    {"mul", "div", "add", "sub", "masked_fill", "where", "dropout", "native_dropout", "getitem"}
    | {"to", "_to_copy", "type_as", "float", "clone", "contiguous", "view", "reshape", "expand"}
)
"""Operators between a product of queries and keys and its product with values."""
_HIDDEN = -1e3
"""Logits below it are those of positions that are not seen."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """Operands of one attention and its sizes.

    Attributes:
        queries, keys: names of the values that logits are made of.
        asked, answered: positions of each.
        size, values: channels of one key and of one value.
        heads: of queries, those of all examples together.
        between: operators from the logits to the weights, last first; none where fused.
    """

    queries: str
    keys: str
    asked: int
    answered: int
    size: int
    values: int
    heads: int
    between: tuple[Op, ...] = ()


def weighing(op: Op, weights: str, find: Callable[[str], Op]) -> Weighing | None:
    """What an operator weighs its values by; None where that is no product of two signals.

    Args:
        op: fused attention, or a product with attention weights.
        weights: its operand that holds them; "" where it is fused.
        find: operators by name.
    """
    if op.target in FUSED:
        shapes = [find(name).shape for name in op.inputs[:3]]
        if any(len(shape) < 3 for shape in shapes):
            return None
        (*first_axes, asked, size), (*_, answered, _), (*_, values) = shapes
        queries, keys = op.inputs[:2]
        return Weighing(queries, keys, asked, answered, size, values, math.prod(first_axes))
    between = _towards_product(find(weights), find, 24)
    if between is None or not any(one.target in SOFTMAX for one in between):
        return None
    product = between[-1]
    first, second = product.inputs
    if product.target == "einsum":
        sizes = _letters(product, find)
        if sizes is None:
            return None
        (mine, theirs), out, size_of = sizes
        ask, answer = set(mine) - set(theirs), set(theirs) - set(mine)
        inner = set(mine) & set(theirs) - set(out)
        if not (len(ask) == len(answer) == len(inner) == 1):
            return None
        asked, answered, size = (size_of[next(iter(x))] for x in (ask, answer, inner))
    else:
        (asked, answered), size = product.shape[-2:], find(first).shape[-1]
    heads = product.numel // (asked * answered)
    values = op.numel // (heads * asked)
    if values * heads * asked != op.numel:
        return None
    return Weighing(first, second, asked, answered, size, values, heads, between[:-1])


def _towards_product(op: Op, find: Callable[[str], Op], left: int) -> tuple[Op, ...] | None:
    """From attention weights back to the product of two values; None if there is no such one."""
    if op.target in PRODUCTS:
        return (op,) if len(op.inputs) == 2 else None
    if op.target not in _BETWEEN or not left:
        return None
    for name in op.inputs:
        if find(name).numel == op.numel or op.target == "getitem":
            found = _towards_product(find(name), find, left - 1)
            if found is not None:
                return (op, *found)
    return None


def _letters(
    op: Op, find: Callable[[str], Op]
) -> tuple[tuple[str, str], str, dict[str, int]] | None:
    """Letters of an einsum's two operands and its result, with their sizes."""
    equation = op.args[0] if op.args and isinstance(op.args[0], str) else ""
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    shapes = [find(name).shape for name in op.inputs]
    if not arrow or [len(term) for term in terms] != [len(shape) for shape in shapes]:
        return None
    sizes = {
        x: n
        for term, shape in zip(terms, shapes, strict=True)
        for x, n in zip(term, shape, strict=True)
    }
    return (terms[0], terms[1]), out, sizes


def scale_of(found: Weighing, op: Op) -> float | None:
    """What logits are multiplied by; None where that is no number."""
    if not found.between:
        given = (op.kwargs or {}).get("scale")
        return given if isinstance(given, float) else found.size**-0.5
    scale = 1.0
    for one in found.between:
        if one.target in ("mul", "div"):
            numbers = [x for x in one.args if isinstance(x, int | float)]
            if len(numbers) != 1:
                return None
            scale *= numbers[0] if one.target == "mul" else 1.0 / numbers[0]
    return scale


def is_causal(found: Weighing, op: Op, value: Callable[[str], Tensor | None]) -> bool:
    """Whether positions see those before them only, as a flag or a constant mask says.

    Args:
        found: the attention.
        op: its operator.
        value: constants by the names of their operators.
    """
    if not found.between:
        given = op.args[5] if len(op.args) > 5 else (op.kwargs or {}).get("is_causal", False)
        return given is True or any(_is_lower(value(name)) for name in op.inputs[3:4])
    masked = [one for one in found.between if one.target in ("add", "masked_fill", "where")]
    return any(_is_lower(value(name)) for one in masked for name in one.inputs)


def _is_lower(mask: Tensor | None) -> bool:
    """Whether a mask shows what is not above its diagonal: numbers to add, or truth values."""
    if mask is None or mask.dim() < 2 or mask.shape[-1] < 2:
        return False
    rows = mask.reshape(-1, *mask.shape[-2:])[0]
    seen = rows > _HIDDEN if bool(rows.min() < 0) else rows > 0.5
    lower = seen.new_ones(seen.shape).tril()
    return bool((seen == lower).all() or (seen == ~lower).all())
