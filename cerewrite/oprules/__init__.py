"""Operator rules: one file per family, every fact about it in one place."""

from __future__ import annotations

from functools import lru_cache

from cerewrite.ir import Op
from cerewrite.oprules.base import OPRULES, LayerRule, ModuleRule, OpRule

__all__ = ["OPRULES", "LayerRule", "ModuleRule", "OpRule", "rule_for"]


@lru_cache(maxsize=1)
def _by_target() -> dict[str, OpRule]:
    return {target: rule for rule in OPRULES.values() for target in rule.targets}


def rule_for(op: Op) -> OpRule | None:
    """The rule that knows an operator; None where there is none.

    An operator that the tracer isolated as a function of one tensor is pointwise, whatever
    its name; a copy or a cast is none.
    """
    known = _by_target().get(op.target)
    if op.function is not None and known is not OPRULES["identity"]:
        return OPRULES["pointwise"]
    return known
