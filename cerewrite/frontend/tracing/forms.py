"""Operators in the form that rules know: one name for what can be written in several ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cerewrite.frontend.tracing.norm_forms import as_norm
from cerewrite.ir import Op, Ref
from cerewrite.kernel.slices import JOINS
from cerewrite.ops.layout import axis_order
from cerewrite.ops.views import VIEWED

_TURNS = ("t", "numpy_T", "transpose", "permute", "mT")
_SAME = {
    "multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div", "concat": "cat",
    "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim",
}  # fmt: skip
"""Second names of operators."""

_SHOWN = ("alias", "detach", "contiguous", "to", "_to_copy", "clone")
_PRODUCTS = {"addmm": (1, 2, 0), "mm": (0, 1, None), "matmul": (0, 1, None), "linear": (0, 1, 2)}
"""Where a product has its value, its weight and its bias, among its arguments."""


def in_known_forms(ops: Sequence[Op]) -> list[Op]:
    """Operators with products by a parameter as linear layers, and without empty operands.

    * ``x W`` and ``b + x W`` with a parameter ``W [in, out]`` are ``linear_turned``, with its
      transpose ``linear``; their operands are the value, the weight, the bias.
    * Second names (``torch.multiply``) give way to first ones.
    * Norms over one axis that are written by hand are one operator (`norm_forms`).
    * A concatenation leaves out what is empty (a cache that holds nothing yet).

    Args:
        ops: operators in execution order.
    """
    found: dict[str, Op] = {}
    for op in ops:
        if op.target in _SAME:
            op = replace(op, target=_SAME[op.target])
        if op.target in JOINS:
            found[op.name] = _without_empty(op, found)
        elif op.target in _PRODUCTS:
            found[op.name] = _as_layer(op, found)
        else:
            found[op.name] = as_norm(op, found)
    return _whole_products(list(found.values()))


def _whole_products(ops: Sequence[Op]) -> list[Op]:
    """Modules that turn a weight, flatten rows, multiply, and give the rows their shape, as one.

    Such are layers that hold their weight ``[in, out]``, or write a linear layer's forward anew.
    """
    inside: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        if op.target not in ("parameter", "constant"):
            inside[op.module].append(op)
    reads = Counter(name for op in ops for name in op.inputs)
    known = {op.name: op for op in ops}
    gone: set[str] = set()
    for module, body in inside.items():
        products = [op for op in body if op.target in ("linear", "linear_turned")]
        if not module or len(products) != 1 or len(body) == 1:
            continue
        (product,) = products
        unread = {op.name for op in body if not reads[op.name] and op.target in (*_TURNS, *_SHOWN)}
        before, after = known[product.inputs[0]], product
        if before.target in VIEWED and before.module == module and len(before.inputs) == 1:
            unread.add(before.name)
            before = known[before.inputs[0]]
        follow = [op for op in body if op.inputs == (product.name,) and op.target in VIEWED]
        if len(follow) == 1 and reads[product.name] == 1:
            unread.add(product.name)
            after = follow[0]
        rest = [op for op in body if op.name not in unread and op is not after]
        if rest or before.shape[:-1] != after.shape[:-1] or product.shape[-1] != after.shape[-1]:
            continue
        names = (before.name, *product.inputs[1:])
        known[after.name] = replace(
            product, name=after.name, shape=after.shape, inputs=names, args=tuple(map(Ref, names))
        )
        gone |= unread
    return [known[op.name] for op in ops if op.name not in gone]


def _without_empty(op: Op, ops: Mapping[str, Op]) -> Op:
    kept = tuple(name for name in op.inputs if ops[name].shape != (0,))
    if len(kept) == len(op.inputs) or not kept:
        return op
    if len(kept) == 1 and ops[kept[0]].shape == op.shape:
        return replace(op, target="clone", inputs=kept, args=(Ref(kept[0]),), kwargs=None)
    parts = [Ref(name) for name in kept]
    return replace(op, inputs=kept, args=(parts, *op.args[1:]))


def _as_layer(op: Op, ops: Mapping[str, Op]) -> Op:
    """A product of a value and a parameter as a linear layer; other operators as they are."""
    read, weighed, added = _PRODUCTS[op.target]
    named = op.kwargs or {}
    scaled = any(named.get(name, 1) != 1 for name in ("alpha", "beta"))
    given = [arg.name if isinstance(arg, Ref) else None for arg in op.args]
    if len(given) <= max(read, weighed) or scaled:
        return op
    x, weight = given[read], given[weighed]
    bias = given[added] if added is not None and len(given) > added else None
    if x is None or weight is None or set(op.inputs) != {n for n in (x, weight, bias) if n}:
        return op
    source, turned = _parameter(ops[weight], ops)
    beside = None if bias is None else _parameter(ops[bias], ops)[0]
    known = source is not None and _parameter(ops[x], ops)[0] is None
    if source is None or not known or len(source.shape) != 2 or (bias and beside is None):
        return op
    outputs_first = turned != (op.target == "linear")
    if op.target == "linear" and outputs_first:
        return op
    names = (x, source.name) if beside is None else (x, source.name, beside.name)
    target = "linear" if outputs_first else "linear_turned"
    return replace(op, target=target, inputs=names, args=tuple(map(Ref, names)), kwargs=None)


def _parameter(op: Op, ops: Mapping[str, Op]) -> tuple[Op | None, bool]:
    """The parameter that a value shows, and whether its two axes are exchanged."""
    turned = False
    while op.target in (*_TURNS, *_SHOWN) and len(op.inputs) == 1:
        before = ops[op.inputs[0]]
        if op.target in _TURNS:
            order = [1, 0] if op.target == "mT" else axis_order(op, len(op.shape))
            if order not in ([0, 1], [1, 0]):
                return None, False
            turned = turned != (order == [1, 0])
        op = before
    return (op if op.target == "parameter" else None), turned
