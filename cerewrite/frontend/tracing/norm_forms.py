"""Norms over channels that a forward writes by hand: ``x rsqrt(mean(x^2) + eps)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cerewrite.ir import Op, Ref

_SHOWN = frozenset({"to", "float", "_to_copy", "type_as", "clone", "contiguous", "alias"})
_VARIANCES = ("var",)
_SQUARES = ("pow", "square", "mul")
_STEPS = frozenset(
    {"expand", "expand_as", "clamp_min", "rsqrt", "sqrt", "add", "pow", "reciprocal"}
)

_PARTS = _STEPS | _SHOWN | {*_VARIANCES, *_SQUARES, "mean", "sum", "sub"}


def as_norm(op: Op, ops: Mapping[str, Op]) -> Op:
    """A product with the inverse root of a value's own mean square, as one operator.

    ``rms_direction`` is ``x / sqrt(mean(x^2))``, ``centred_direction`` likewise of the value less
    its mean; both over one axis, their second argument, and up to a small number that is added.
    The third argument is a factor of the square: ``1 / n`` where n squares are added up instead.

    Args:
        op: a product or quotient of two values.
        ops: the operators before it by name.

    Returns:
        The operator itself where it is none of these.
    """
    if op.target not in ("mul", "div") or len(op.inputs) != 2:
        return op
    pairs = [op.inputs, op.inputs[::-1]] if op.target == "mul" else [op.inputs]
    for above, below in pairs:
        found = _energy(ops[below], ops, inverted=op.target == "mul")
        value = _shown(ops[above], ops)
        if found is None or op.shape != value.shape:
            continue
        energy, kind, axis = found
        scale = 1.0 / op.shape[axis] if kind == "sum" else 1.0
        centred = _centred(value, ops, axis)
        whose = energy if kind == "var" else _centred(energy, ops, axis)
        if centred is not None and whose is centred:
            return _norm(op, "centred_direction", centred, axis, scale)
        if energy is value and kind != "var":
            return _norm(op, "rms_direction", value, axis, scale)
    return op


def _norm(op: Op, target: str, value: Op, axis: int, scale: float) -> Op:
    given = (Ref(value.name), axis, scale)
    return replace(op, target=target, inputs=(value.name,), args=given, kwargs=None, function=None)


def _energy(op: Op, ops: Mapping[str, Op], *, inverted: bool) -> tuple[Op, str, int] | None:
    """The value whose mean (or sum of) squares or variance the root of is taken; which; its axis.

    The root is an inverse one where a product takes it, by way of a reciprocal or not.
    """
    roots, inverse = 0, False
    while op.target in _STEPS | _SHOWN and len(op.inputs) == 1:
        roots += op.target in ("rsqrt", "sqrt") or _is_power(op, 0.5, -0.5)
        inverse = inverse != (op.target in ("rsqrt", "reciprocal") or _is_power(op, -0.5))
        op = ops[op.inputs[0]]
    if roots != 1 or inverse != inverted or not op.inputs:
        return None
    axis = _axis(op, ops)
    if axis is None:
        return None
    if op.target in _VARIANCES:
        return _shown(ops[op.inputs[0]], ops), "var", axis
    if op.target not in ("mean", "sum"):
        return None
    square = ops[op.inputs[0]]
    alike = len(set(square.inputs)) == 1 and square.target in _SQUARES
    if not alike or (square.target == "pow" and not _is_power(square, 2)):
        return None
    return _shown(ops[square.inputs[0]], ops), op.target, axis


def _is_power(op: Op, *exponents: float) -> bool:
    return op.target == "pow" and len(op.args) > 1 and op.args[1] in exponents


def _axis(op: Op, ops: Mapping[str, Op]) -> int | None:
    """The one axis that an operator reduces and keeps as one; None if it is no such."""
    named, rank = op.kwargs or {}, len(ops[op.inputs[0]].shape)
    dim = op.args[1] if len(op.args) > 1 else named.get("dim")
    listed = [dim] if isinstance(dim, int) else dim
    kept = 0 < rank == len(op.shape)
    if not isinstance(listed, list | tuple) or len(listed) != 1 or not kept:
        return None
    return int(listed[0]) % rank


def _centred(op: Op, ops: Mapping[str, Op], axis: int) -> Op | None:
    """The value that an operator takes the mean along an axis from; None if it does not."""
    if op.target != "sub" or len(op.inputs) != 2:
        return None
    value, mean = (_shown(ops[name], ops) for name in op.inputs)
    known = mean.target == "mean" and _shown(ops[mean.inputs[0]], ops) is value
    return value if known and _axis(mean, ops) == axis else None


def _shown(op: Op, ops: Mapping[str, Op]) -> Op:
    """What a copy or cast is one of."""
    while op.target in _SHOWN and op.inputs:
        op = ops[op.inputs[0]]
    return op


def parts_of_norms(ops: Sequence[Op]) -> set[str]:
    """The steps of norms that are one operator now (`as_norm`), where nothing else reads them.

    Means that nothing reads are among them: attention weights that a caller leaves.
    """
    norms = {op.module for op in ops if op.target in ("rms_direction", "centred_direction")}
    read: set[str] = set()
    found: set[str] = set()
    for op in reversed(ops):
        inside = op.module in norms and op.target in _PARTS
        if (inside or op.target == "mean") and op.name not in read:
            found.add(op.name)
        else:
            read.update(op.inputs)
    return found
