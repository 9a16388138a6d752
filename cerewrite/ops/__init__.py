"""Operator rules: one file per family, every fact about it in one place."""

from __future__ import annotations

from cerewrite.ir import Op
from cerewrite.ops.base import OPRULES, TARGETS, LayerRule, ModuleRule, OpRule

__all__ = ["OPRULES", "LayerRule", "ModuleRule", "OpRule", "rule_for"]


def rule_for(op: Op) -> OpRule | None:
    """The rule that knows an operator; None where there is none.

    An operator that the tracer isolated as a function of one tensor is pointwise, whatever
    its name; a copy or a cast is none.
    """
    identity = OPRULES["identity"]
    known = TARGETS.get(op.target)
    if op.function is not None and known is not identity:
        return OPRULES["pointwise"]
    return known
