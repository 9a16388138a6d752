"""The operators that an output is made of, and what each of them reads of its operands."""

from __future__ import annotations

from collections.abc import Sequence

from cerewrite.ir import Op, TracedModel
from cerewrite.kernel.batch import Batch, batch_of
from cerewrite.kernel.moments import MomentContext
from cerewrite.ops import LayerRule, ModuleRule, rule_for
from cerewrite.ops.attention import MatMul, ScaledDotProductAttention, Softmax
from cerewrite.ops.divide import Divide, sums_to_one
from cerewrite.ops.layout import Passing
from cerewrite.ops.quotients import quotient
from cerewrite.ops.weighing import weighing

_TRANSPARENT = frozenset({"add", "concatenate", "identity", "pool", "flatten", "permute", "pick"})
"""Rules that pass what all examples have in common as it is."""


def route(
    traced: TracedModel, ends: Sequence[str], context: MomentContext
) -> dict[str, tuple[str, ...]]:
    """What some values are made of, in execution order: operators by name, what each of them reads.

    What only attention's logits need becomes `MomentContext.optional`.
    """
    ops = {op.name: op for op in traced.ops}
    weights = _attention_weights(traced)
    least = _ancestors(ops, ends, weights, context, logits=False)
    needed = _ancestors(ops, ends, weights, context, logits=True)
    context.optional = frozenset(needed - least)
    context.batched.update(_towards_batch_norms(traced))
    return {
        op.name: tuple(_signals(ops, op, weights, logits=True))
        for op in traced.ops
        if op.name in needed
    }


def _attention_weights(traced: TracedModel) -> frozenset[str]:
    """Values that are a softmax over positions, or divided by their sum; moved or dropped at most.

    What they weigh passes as it is (`cerewrite.ops.attention`), so that neither they nor the
    logits in front of them are needed there.
    """
    found: set[str] = set()
    ops = {op.name: op for op in traced.ops}
    for op in traced.ops:
        rule = rule_for(op)
        if (
            isinstance(rule, Softmax)
            or (isinstance(rule, Passing) and op.inputs and op.inputs[0] in found)
            or sums_to_one(op, ops)
        ):
            found.add(op.name)
    return frozenset(found)


def _ancestors(
    ops: dict[str, Op],
    names: Sequence[str],
    weights: frozenset[str],
    context: MomentContext,
    *,
    logits: bool,
) -> set[str]:
    found: set[str] = set()
    stack = list(names)
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            if context.known(ops[current]) is not None:
                continue
            stack += _signals(ops, ops[current], weights, logits=logits)
    return found


def _signals(ops: dict[str, Op], op: Op, weights: frozenset[str], *, logits: bool) -> list[str]:
    """What an operator reads, less the weights of a layer or norm, and attention's weights.

    With ``logits``, attention reads queries and keys behind its values.
    """
    rule = rule_for(op)
    if isinstance(rule, MatMul):
        mixed = [name for name in op.inputs if name in weights]
        found = weighing(op, mixed[0], ops.__getitem__) if logits and len(mixed) == 1 else None
        values = [name for name in op.inputs if name not in weights] or list(op.inputs)
        return values if found is None else [*values, found.queries, found.keys]
    if isinstance(rule, Divide) and (form := quotient(op, ops.__getitem__)) is not None:
        return [form.source]
    if isinstance(rule, ScaledDotProductAttention):
        return [op.inputs[2], *(op.inputs[:2] if logits else ())]
    if not isinstance(rule, LayerRule | ModuleRule):
        return list(op.inputs)
    return list(op.inputs[:1])


def _towards_batch_norms(traced: TracedModel) -> dict[str, Batch | None]:
    """Layers whose output a batch norm reads: its batch, or None where others read it as well."""
    shapes = {op.name: op.shape for op in traced.ops}
    readers: dict[str, list[Op]] = {}
    for op in traced.ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)

    def ends(name: str, seen: set[str]) -> set[Batch | None]:
        found: set[Batch | None] = set()
        for op in readers.get(name, []):
            rule = rule_for(op)
            kind = "" if rule is None else rule.name
            if kind in _TRANSPARENT and op.name not in seen:
                seen.add(op.name)
                found |= ends(op.name, seen)
            elif kind not in _TRANSPARENT:
                batch = batch_of(op, shapes[op.inputs[0]]) if kind == "batch_norm" else None
                found.add(batch)
        return found

    norms = any(
        rule is not None and rule.name == "batch_norm" for rule in map(rule_for, traced.ops)
    )
    met = {layer.node: ends(layer.node, set()) for layer in traced.layers} if norms else {}
    found: dict[str, Batch | None] = {}
    for name, read in met.items():
        batches = [batch for batch in read if batch is not None]
        if batches:
            least = min(batches, key=lambda batch: batch.examples)
            found[name] = None if None in read else least
    return found
