"""Operator rules: one file per family, every fact about it in one place."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Op
from cerewrite.ops.base import FAMILIES, OPRULES, TARGETS, LayerRule, ModuleRule, OpRule
from cerewrite.ops.modules import (
    ConcatenationLayer,
    ModuleFamily,
    ResizableModule,
    SampledLayer,
    SplittableLayer,
)

__all__ = [
    "FAMILIES",
    "OPRULES",
    "LayerRule",
    "ModuleFamily",
    "ModuleRule",
    "OpRule",
    "SampledLayer",
    "SplittableLayer",
    "concatenation_layer",
    "family_of",
    "resizable_module",
    "rule_for",
    "sampled_layer",
    "sampled_of",
    "splittable_layer",
]

F = TypeVar("F", bound=ModuleFamily)


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


def resizable_module(name: str) -> ResizableModule:
    """The rule of that name, which resizes modules."""
    return _family(name, ResizableModule, "resizes modules")  # type: ignore[type-abstract]


def sampled_layer(name: str) -> SampledLayer:
    """The rule of that name, whose modules are sampled layers."""
    return _family(name, SampledLayer, "draws weights")  # type: ignore[type-abstract]


def splittable_layer(name: str) -> SplittableLayer:
    """The rule of that name, which splits layers."""
    return _family(name, SplittableLayer, "splits layers")  # type: ignore[type-abstract]


def concatenation_layer(name: str) -> ConcatenationLayer:
    """The rule of that name, whose split layers may read concatenations."""
    what = "splits layers that read concatenations"
    return _family(name, ConcatenationLayer, what)  # type: ignore[type-abstract]


def _family(name: str, kind: type[F], what: str) -> F:
    """The rule of that name; a `UsageError` if there is none, or it is of another kind."""
    rule = FAMILIES[name]
    if not isinstance(rule, kind):
        raise UsageError(
            f"the operator rule '{name}' is none that {what}", advice="make the plan again"
        )
    return rule


def family_of(module: nn.Module) -> ModuleFamily | None:
    """The rule that knows a module's type, or the nearest of its bases; None if none does.

    Example:
        >>> class Named(nn.Linear):
        ...     pass
        >>> family_of(Named(2, 2)).name, family_of(nn.ReLU())
        ('linear', None)
    """
    rules = sorted(FAMILIES.values(), key=lambda rule: isinstance(rule, OpRule))
    known = {kind: rule for rule in rules for kind in (*rule.modules, *rule.built)}
    return next((known[kind] for kind in type(module).__mro__ if kind in known), None)


def sampled_of(module: nn.Module) -> SampledLayer | None:
    """`family_of` where it is a family of sampled layers, else None."""
    rule = family_of(module)
    return rule if isinstance(rule, SampledLayer) else None
