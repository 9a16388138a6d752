"""Parameters and FLOPs counted on the built model, against the plan and its budgets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.ops import SampledLayer, sampled_layer, sampled_of
from cerewrite.runtime.trees import examples
from cerewrite.verifier.shapes import run_for_shapes


def check_budget(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """The built model has the plan's parameters and FLOPs, and keeps within every budget.

    FLOPs are counted from the shapes that pass through linear and convolution modules, two per
    multiply-add. FLOPs that the original spends outside such modules (a functional call, an
    attention's fused projection) are the same before and after; they are taken from the plan's
    baseline, and the detail says how many.
    """
    params = count_params(rewritten)
    layers = [layer for region in plan.regions for layer in region.layers]
    rules = {layer.name: sampled_layer(layer.op) for layer in layers}
    before, after = (count_flops(model, inputs, rules) for model in (original, rewritten))
    outside = plan.baseline.flops - before
    flops = after + outside
    note = f", {outside:,} of them outside linear and conv modules" if outside else ""
    counted = {"params": params, "flops": flops}
    checks = [
        _equal("params", params, plan.planned.params, ""),
        _equal("flops", flops, plan.planned.flops, note),
    ]
    for budget in plan.budgets:
        if budget.cost in counted:
            value = counted[budget.cost]
            detail = f"{value:,} {budget.cost} of at most {budget.limit:,.0f}"
            passed = value <= budget.limit
            checks.append(Check(f"budget {budget.text}", passed, detail, value, budget.limit))
    return checks


def count_params(model: nn.Module) -> int:
    """Parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(
    model: nn.Module, inputs: Inputs, rules: Mapping[str, SampledLayer] = MappingProxyType({})
) -> int:
    """FLOPs per example of the sampled layers (linear, convolution) that the model calls.

    Args:
        model: the model; a copy of it is run.
        inputs: example inputs, as many as `cerewrite.runtime.trees.examples` says.
        rules: of layers whose types no rule knows, by name.

    Example:
        >>> import torch
        >>> count_flops(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        ...             (torch.zeros(3, 4),))
        96
    """
    total = rows = 0

    def count(rule: SampledLayer, module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total, rows
        rows = rows or output.shape[0]
        total += 2 * rule.multiply_adds(module, inputs[0], output)

    def hook(copy: nn.Module) -> None:
        nonlocal total, rows
        total = rows = 0
        for name, module in copy.named_modules():
            if (rule := sampled_of(module) or rules.get(name)) is not None:
                module.register_forward_hook(partial(count, rule))

    run_for_shapes(model, inputs, training=False, prepare=hook)
    return total // examples(inputs, rows)


def _equal(name: str, counted: int, planned: int, note: str) -> Check:
    detail = f"{counted:,} {name} counted, {planned:,} planned{note}"
    return Check(name, counted == planned, detail, counted, planned)
