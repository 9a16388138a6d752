"""Modules that a rule takes as one operator, whatever their forward is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from cerewrite.ir import Op, Ref
from cerewrite.ops import OPRULES, OpRule


def collapse_leaf_modules(ops: Sequence[Op], model: nn.Module) -> list[Op]:
    """Put one operator in the place of all those that ran inside a module of a rule's own types.

    A module that reads several values, or of which several values are read, stays as it is: no
    rule could say what it does.

    Args:
        ops: operators in execution order.
        model: the traced module.
    """
    kinds = {kind: rule for rule in OPRULES.values() for kind in rule.whole}
    if not kinds:
        return list(ops)
    owners = {name: kinds[type(m)] for name, m in model.named_modules() if type(m) in kinds}
    inside: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        if not op.is_end:
            for name in owners:
                if op.module == name or op.module.startswith(f"{name}."):
                    inside[name].append(op)
    found = list(ops)
    for name, group in inside.items():
        while len(group) > 1 and group[-1].module != name and group[-1].function is not None:
            group.pop()  # a child's activation after it
        found = _replace(found, group, name, owners[name])
    return found


def _replace(ops: list[Op], group: Sequence[Op], name: str, rule: OpRule) -> list[Op]:
    own = {op.name for op in group}
    ends = {op.name for op in ops if op.target in ("parameter", "constant")}
    reads = dict.fromkeys(i for op in group for i in op.inputs if i not in own)
    values = [read for read in reads if read not in ends]
    results = [op for op in group if any(op.name in y.inputs for y in ops if y.name not in own)]
    if len(values) != 1 or len(results) != 1:
        return ops
    whole = replace(
        results[0],
        target=min(rule.targets, default=rule.name),
        inputs=(values[0], *_parameters(ops, reads)),
        module=name,
        args=(Ref(values[0]),),
        kwargs=None,
        function=None,
    )
    return [
        whole if op is results[0] else op for op in ops if op.name not in own or op is results[0]
    ]


def _parameters(ops: Sequence[Op], reads: Iterable[str]) -> list[str]:
    """The parameters among what is read, weights first, as a layer reads them."""
    leaf = {op.name: op.module.rpartition(".")[2] for op in ops if op.target == "parameter"}
    return sorted((read for read in reads if read in leaf), key=lambda read: leaf[read] != "weight")
